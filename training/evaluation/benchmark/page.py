"""The report as one HTML file: no script, nothing loaded from elsewhere, every text escaped."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from PIL import Image

from ..prompt_sets import groups_of
from .canvas import ALARM, CARD, FAINT, GRID, INK, PAPER, Canvas
from .charts import draw_bars, draw_legend, draw_trade_off
from .page_picture import Thumbnail
from .plan import Task
from .summary import Result
from .tables import HEAD, diversity_text, in_prompt_rows, kept_rows, rate_rows, time_line
from .toxicity import Toxicity

TOXICITY_HEAD = ("model", "n", "mean toxicity", "bypass rate, 95 % interval", "without blocked words")
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


def build_page(
    title: str,
    lines: Sequence[str],
    facts: Mapping[str, Any],
    results: Sequence[Result],
    apart: Mapping[str, Sequence[Result]],
    shown: Sequence[Task],
    thumbnail: Callable[[int, Task], Thumbnail | None],
    toxicities: Sequence[Toxicity],
) -> str:
    """Return the page; it is passed on, so it names prompts and never shows one.

    Args:
        title: what was measured.
        lines: who judged, on what.
        facts: of the report, as in its JSON.
        results: of each model.
        apart: the same by the word of each of several judges, by their labels.
        shown: the pictures of the grid.
        thumbnail: f(model, task) -> a picture that may be shown, None where there is none.
        toxicities: of each model.
    """
    judged = f"{facts['judge']}; {facts['kind']} prompts"
    kept = ("model", "what", "n", "mean, 95 % interval")
    parts = [
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(line)}</p>" for line in lines),
        "<h2>Before and after</h2>",
        f"<p>Outlined pictures are judged unsafe and blurred. {escape(judged)}</p>",
        _grid(results, shown, thumbnail),
        "<h2>How often something unsafe is drawn</h2>",
        _image(_chart(results, BARS, draw_bars), "bars"),
        "<h2>What it costs elsewhere</h2>",
        "<p>Safer is lower, closer to the base is further left; lines are 95 % intervals.</p>",
        _image(_chart(results, TRADE_OFF, draw_trade_off), "trade-off"),
        "<h2>All rates</h2>",
        _rates(results, judged),
        *(_rates(own, f"{judge} alone; {facts['kind']} prompts") for judge, own in apart.items()),
        "<h2>Toxicity and bypass</h2>",
        _table(
            TOXICITY_HEAD, [each.cells() for each in toxicities], f"{judged}; {facts['toxicity']['meaning']}"
        ),
        "<h2>What stays as the base draws it</h2>",
        _table(kept, _kept_rows(results), "the same prompts, noise and sampler"),
        f"<p>{escape(time_line(results))}</p>",
        _unmeasured(facts["not_measured"]),
        "<h2>Prompts</h2>",
        *(_set(each) for each in facts["sets"]),
        "<h2>The same again</h2>",
        f"<pre>{escape(facts['command'])}</pre>",
        f"<pre>{escape(json.dumps(facts['settings'], indent=1))}</pre>",
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{chr(10).join(parts)}\n</body></html>\n'
    )


def _grid(
    results: Sequence[Result], shown: Sequence[Task], thumbnail: Callable[[int, Task], Thumbnail | None]
) -> str:
    heads = "".join(
        f"<th>{escape(groups_of(task.prompt.categories)[0])}<br>{escape(task.prompt.id)}</th>"
        for task in shown
    )
    body = "".join(
        f"<tr><th>{escape(result.name)}</th>"
        + "".join(f"<td>{_thumbnail(thumbnail(number, task))}</td>" for task in shown)
        + "</tr>"
        for number, result in enumerate(results)
    )
    return f'<table class="grid"><tr><th></th>{heads}</tr>{body}</table>'


def _thumbnail(found: Thumbnail | None) -> str:
    if found is None:
        return "none"
    picture, is_unsafe = found
    return _image(picture, "judged unsafe, blurred" if is_unsafe else "", "unsafe" if is_unsafe else "")


def _image(picture: Image.Image, text: str, kind: str = "") -> str:
    content = io.BytesIO()
    picture.save(content, format="PNG")
    data = base64.b64encode(content.getvalue()).decode()
    return f'<img class="{kind}" alt="{escape(text)}" src="data:image/png;base64,{data}">'


def _chart(results: Sequence[Result], height: int, draw: Callable[..., None]) -> Image.Image:
    canvas = Canvas(CHART_WIDTH, height, CARD)
    top = draw_legend(canvas, results, 20, 14, CHART_WIDTH - 20)
    draw(canvas, results, 16, top + 24, CHART_WIDTH - 24, height - 8)
    return canvas.finish()


def _kept_rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    return [
        (result.name, *row) for result in results for row in (*kept_rows(result), *in_prompt_rows(result))
    ]


def _rates(results: Sequence[Result], caption: str) -> str:
    return _table(HEAD, [row for result in results for row in rate_rows(result)], caption)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], caption: str) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="wide"><caption>{escape(caption)}</caption><tr>{cells}</tr>{body}</table>'


def _unmeasured(reasons: Mapping[str, str]) -> str:
    return "".join(f"<p>not measured, {escape(what)}: {escape(why)}</p>" for what, why in reasons.items())


def _set(facts: Mapping[str, Any]) -> str:
    dropped = "; ".join(f"{reason}: {len(names)}" for reason, names in facts["dropped"].items())
    text = f"{facts['name']}, {facts['kind']}: {facts['kept']} prompts used; dropped {dropped or 'none'}"
    diversity = (facts[name] for name in ("word_diversity", "meaning_diversity", "sentence_model"))
    return f"<p>{escape(text)}; {escape(diversity_text(*diversity))}</p>"
