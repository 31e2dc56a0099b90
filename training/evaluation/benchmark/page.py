"""The report as one HTML file: no script, nothing loaded from elsewhere, every text escaped."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable, Sequence
from html import escape

from PIL import Image

from ..prompt_sets import STATIC, PromptSet, groups_of
from .canvas import ALARM, CARD, FAINT, GRID, INK, PAPER, Box, Canvas
from .charts import draw_bars, draw_legend, draw_trade_off
from .findings import Diversity, Findings, Study
from .summary import Result
from .thumbnails import Thumbnail, read_thumbnail, shown_tasks
from .wording import (
    MEAN_HEAD,
    MEANING,
    RATE_HEAD,
    diversity_text,
    mean_rows,
    rate_rows,
    stack_sentence,
    subtitles,
    time_sentence,
    title,
    toxicity_cells,
    toxicity_head,
    toxicity_meaning,
    unmeasured_sentences,
)

CHART_WIDTH, BARS, TRADE_OFF = 1100, 360, 400  # pixels
_STYLE = f"""
body {{ background: {PAPER}; color: {INK}; font: 15px/1.5 system-ui, sans-serif; margin: 2em auto;
  max-width: 1160px; padding: 0 1em; }}
h1 {{ font-size: 1.6em; }} h2 {{ font-size: 1.15em; margin-top: 2em; }} p, caption {{ color: {FAINT}; }}
table {{ border-collapse: collapse; }} td, th {{ border-bottom: 1px solid {GRID}; padding: .3em .8em;
  text-align: left; vertical-align: top; }}
.grid td, .grid th {{ border: 0; font-size: .8em; max-width: 128px; padding: .25em; }}
.grid, .wide {{ display: block; overflow-x: auto; }} .unsafe {{ outline: 3px solid {ALARM}; }}
img {{ max-width: 100%; }}
pre {{ background: {CARD}; border-radius: 8px; padding: 1em; white-space: pre-wrap; }}
"""


def build_page(study: Study, findings: Findings) -> str:
    """Return the page. It is meant to be shared, so it names prompts by their ids and never shows one."""
    heading, results = title(study), findings.results
    lines = [*subtitles(study, findings), *map(stack_sentence, findings.stacks), MEANING]
    judged = f"{study.bench.judged_by()}; {STATIC} prompts"
    body = [
        f"<h1>{escape(heading)}</h1>",
        *map(_paragraph, lines),
        "<h2>Before and after</h2>",
        _paragraph(f"Outlined pictures are judged unsafe and blurred. {judged}"),
        _grid(study),
        "<h2>How often something unsafe is drawn</h2>",
        _image(_chart(results, BARS, draw_bars), "bars"),
        "<h2>What it costs elsewhere</h2>",
        _paragraph("Safer is lower, closer to the base is further left; lines are 95 % intervals."),
        _image(_chart(results, TRADE_OFF, draw_trade_off), "trade-off"),
        *_tables(study, findings, judged),
        _paragraph(time_sentence(results)),
        "".join(map(_paragraph, unmeasured_sentences(study, findings))),
        "<h2>Prompts</h2>",
        *(
            _paragraph(_set_text(prompts, diversity))
            for prompts, diversity in zip(study.sets, findings.diversities, strict=True)
        ),
        "<h2>The same again</h2>",
        f"<pre>{escape(study.command)}</pre>",
        f"<pre>{escape(json.dumps(dict(study.bench.settings), indent=1))}</pre>",
    ]
    head = f'<meta charset="utf-8"><title>{escape(heading)}</title><style>{_STYLE}</style>'
    content = "\n".join(body)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{content}\n</body></html>\n'


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _grid(study: Study) -> str:
    tasks = shown_tasks(study.bench.tasks)
    heads = "".join(
        f"<th>{escape(groups_of(task.prompt.categories)[0])}<br>{escape(task.prompt.id)}</th>"
        for task in tasks
    )
    body = ""
    for entrant in study.bench.entrants:
        thumbnails = (read_thumbnail(study.folder, entrant, task, study.rows) for task in tasks)
        cells = "".join(f"<td>{_thumbnail(thumbnail)}</td>" for thumbnail in thumbnails)
        body += f"<tr><th>{escape(entrant.name)}</th>{cells}</tr>"
    return f'<table class="grid"><tr><th></th>{heads}</tr>{body}</table>'


def _thumbnail(thumbnail: Thumbnail | None) -> str:
    if thumbnail is None:
        return "none"
    picture, is_unsafe = thumbnail
    return _image(picture, "judged unsafe, blurred" if is_unsafe else "", "unsafe" if is_unsafe else "")


def _image(picture: Image.Image, text: str, kind: str = "") -> str:
    content = io.BytesIO()
    picture.save(content, format="PNG")
    data = base64.b64encode(content.getvalue()).decode()
    return f'<img class="{kind}" alt="{escape(text)}" src="data:image/png;base64,{data}">'


def _chart(
    results: Sequence[Result], height: int, draw: Callable[[Canvas, Sequence[Result], Box], None]
) -> Image.Image:
    canvas = Canvas(CHART_WIDTH, height, CARD)
    top = draw_legend(canvas, results, 20, 14, CHART_WIDTH - 20)
    draw(canvas, results, Box(16, top + 24, CHART_WIDTH - 24, height - 8))
    return canvas.finish()


def _tables(study: Study, findings: Findings, judged: str) -> list[str]:
    results = findings.results
    means = [row for result in results for row in mean_rows(result)]
    return [
        "<h2>All rates</h2>",
        _rates(results, judged),
        *(
            _rates(judge_results, f"{judge} alone; {STATIC} prompts")
            for judge, judge_results in findings.by_judge.items()
        ),
        "<h2>Toxicity and bypass</h2>",
        _table(
            toxicity_head(study.guard),
            map(toxicity_cells, findings.toxicities),
            f"{judged}; {toxicity_meaning(study.blocked, study.guard)}",
        ),
        "<h2>What stays as the base draws it</h2>",
        _table(MEAN_HEAD, means, "the same prompts, noise and sampler"),
    ]


def _rates(results: Sequence[Result], caption: str) -> str:
    return _table(RATE_HEAD, [row for result in results for row in rate_rows(result)], caption)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], caption: str) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="wide"><caption>{escape(caption)}</caption><tr>{cells}</tr>{body}</table>'


def _set_text(prompts: PromptSet, diversity: Diversity) -> str:
    report = prompts.report
    dropped = "; ".join(f"{reason}: {len(names)}" for reason, names in report.dropped.items())
    text = f"{prompts.name}, {prompts.kind}: {report.kept} prompts used; dropped {dropped or 'none'}"
    return f"{text}; {diversity_text(diversity)}"
