"""The report as one picture: before and after, bars per category, the trade-off, and the command."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from ..prompt_sets import groups_of
from .canvas import ALARM, FAINT, PAPER, Box, Canvas, short_names, shortened, typed_lines
from .charts import LEGEND_LINE, colour_of, draw_bars, draw_legend, draw_trade_off
from .findings import Findings, Study
from .plan import Task
from .thumbnails import SIDE, Thumbnail, read_thumbnail, shown_tasks
from .wording import subtitles, title

WIDTH, MARGIN, NAMES = 1200, 24, 150  # pixels; NAMES: left of the grid
BARS, TRADE_OFF, HEAD, TYPED = 330, 380, 56, 18  # heights in pixels; TYPED: of a line of text
COLUMNS = 18  # most columns of the grid; with more its pictures are too small to see
_GAP, _ROW_GAP = 6, 8  # between pictures of the grid


def draw_poster(study: Study, findings: Findings) -> Image.Image:
    """Draw the report; the command is shown whole, in as many lines as it needs."""
    results, lines = findings.results, subtitles(study, findings)
    tasks = shown_tasks(study.bench.tasks)[:COLUMNS]
    cell = min(SIDE, (WIDTH - 3 * MARGIN - NAMES) // max(1, len(tasks)) - _GAP)
    grid = (len(results) * (cell + _ROW_GAP) + 54) if tasks else 0
    legend = LEGEND_LINE * (len(results) + 1)  # at most
    command = typed_lines(study.command, WIDTH - 2 * MARGIN)
    command_height = len(command) * TYPED + 48
    head = HEAD + TYPED * len(lines)
    height = head + legend + grid + BARS + TRADE_OFF + command_height + 4 * MARGIN
    canvas = Canvas(WIDTH, height, PAPER)
    _draw_head(canvas, title(study), lines)
    top = draw_legend(canvas, results, MARGIN, head + 4, WIDTH - MARGIN) + 6
    if tasks:
        _draw_grid(canvas, study, tasks, top, cell)
        top += grid + MARGIN / 2
    right = WIDTH - 2 * MARGIN
    _card(canvas, top, BARS, "pictures judged unsafe, with 95 % intervals")
    draw_bars(canvas, results, Box(MARGIN * 1.5, top + 52, right, top + BARS - 8))
    top += BARS + MARGIN / 2
    _card(canvas, top, TRADE_OFF, "safer is lower, closer to the base is further left")
    draw_trade_off(canvas, results, Box(MARGIN * 1.5, top + 52, right, top + TRADE_OFF - 8))
    top += TRADE_OFF + MARGIN / 2
    _card(canvas, top, command_height, "the same again")
    for number, line in enumerate(command):
        canvas.typed(MARGIN, top + 40 + TYPED * number, line)
    return canvas.finish(top + command_height + MARGIN / 2)


def _draw_head(canvas: Canvas, heading: str, lines: Sequence[str]) -> None:
    width = WIDTH - 2 * MARGIN
    canvas.text(MARGIN, 18, shortened(heading, width, 24), size=24)
    for number, line in enumerate(lines):
        canvas.text(MARGIN, 52 + TYPED * number, shortened(line, width, 13), size=13, colour=FAINT)


def _card(canvas: Canvas, top: float, height: float, heading: str) -> None:
    canvas.card(MARGIN / 2, top, WIDTH - MARGIN / 2, top + height)
    canvas.text(MARGIN, top + 14, heading, size=15)


def _draw_grid(canvas: Canvas, study: Study, tasks: Sequence[Task], top: float, cell: float) -> None:
    entrants = study.bench.entrants
    height = len(entrants) * (cell + _ROW_GAP) + 44
    canvas.card(MARGIN / 2, top, WIDTH - MARGIN / 2, top + height)
    rows = [top + 34 + number * (cell + _ROW_GAP) for number in range(len(entrants))]
    for column, task in enumerate(tasks):
        x = MARGIN + NAMES + column * (cell + _GAP)
        name = shortened(groups_of(task.prompt.categories)[0], cell + 4, 12)
        canvas.text(x + cell / 2, top + 12, name, size=12, anchor="ma")
        for entrant, y in zip(entrants, rows, strict=True):
            thumbnail = read_thumbnail(study.folder, entrant, task, study.rows)
            _draw_thumbnail(canvas, thumbnail, x, y, cell)
    names = short_names([entrant.name for entrant in entrants], NAMES - 26)
    for number, (name, row) in enumerate(zip(names, rows, strict=True)):
        y = row + cell / 2
        canvas.dot(MARGIN + 5, y, 5, colour_of(number))
        canvas.text(MARGIN + 16, y, name, anchor="lm")
    canvas.text(MARGIN, top + 12, "framed: judged unsafe", size=11, colour=ALARM)


def _draw_thumbnail(
    canvas: Canvas, thumbnail: Thumbnail | None, left: float, top: float, side: float
) -> None:
    if thumbnail is None:
        canvas.text(left + side / 2, top + side / 2, "none", size=11, colour=FAINT, anchor="mm")
        return
    picture, is_unsafe = thumbnail
    canvas.paste(picture, left, top, side)
    if is_unsafe:
        canvas.frame(left - 1, top - 1, left + side, top + side, ALARM, 2)
