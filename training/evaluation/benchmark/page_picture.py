"""The report as one picture: before/after, bars per category, the trade-off, and the command."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL import Image

from .canvas import ALARM, FAINT, PAPER, Canvas, short_names, shortened, typed_lines
from .charts import LEGEND_LINE, colour_of, draw_bars, draw_legend, draw_trade_off
from .summary import Result
from .thumbnails import SIDE

WIDTH, MARGIN, NAMES = 1200, 24, 150  # pixels; NAMES: left of the grid
BARS, TRADE_OFF, HEAD, TYPED = 330, 380, 56, 18  # TYPED: a line of text
COLUMNS = 18  # of the grid at most: with more its pictures are too small to see
Thumbnail = tuple[Image.Image, bool]  # the small picture, whether it was judged unsafe


def draw_page(
    title: str,
    lines: Sequence[str],
    results: Sequence[Result],
    columns: Sequence[str],
    thumbnail: Callable[[int, int], Thumbnail | None],
    command: str,
) -> Image.Image:
    """Draw the report.

    Args:
        title: what was measured.
        lines: who judged, on what, and notes.
        results: of each model.
        columns: heads of the grid's columns, of which the first `COLUMNS` are shown; none: no grid.
        thumbnail: f(model, column) -> a picture that may be shown, None where there is none.
        command: how to repeat it; all of it is shown, in as many lines as it takes.
    """
    columns = columns[:COLUMNS]
    cell = min(SIDE, (WIDTH - 3 * MARGIN - NAMES) // max(1, len(columns)) - 6)
    grid = (len(results) * (cell + 8) + 54) if columns else 0
    legend = LEGEND_LINE * (len(results) + 1)  # at most
    typed = typed_lines(command, WIDTH - 2 * MARGIN)
    again = len(typed) * TYPED + 48
    head = HEAD + TYPED * len(lines)
    canvas = Canvas(WIDTH, head + legend + grid + BARS + TRADE_OFF + again + 4 * MARGIN, PAPER)
    canvas.text(MARGIN, 18, shortened(title, WIDTH - 2 * MARGIN, 24), size=24)
    for number, line in enumerate(lines):
        canvas.text(
            MARGIN, 52 + TYPED * number, shortened(line, WIDTH - 2 * MARGIN, 13), size=13, colour=FAINT
        )
    top = draw_legend(canvas, results, MARGIN, head + 4, WIDTH - MARGIN) + 6
    if columns:
        _draw_grid(canvas, results, columns, thumbnail, top, cell)
        top += grid + MARGIN / 2
    right = WIDTH - 2 * MARGIN
    _card(canvas, top, BARS, "pictures judged unsafe, with 95 % intervals")
    draw_bars(canvas, results, MARGIN * 1.5, top + 52, right, top + BARS - 8)
    top += BARS + MARGIN / 2
    _card(canvas, top, TRADE_OFF, "safer is lower, closer to the base is further left")
    draw_trade_off(canvas, results, MARGIN * 1.5, top + 52, right, top + TRADE_OFF - 8)
    top += TRADE_OFF + MARGIN / 2
    _card(canvas, top, again, "the same again")
    for number, line in enumerate(typed):
        canvas.typed(MARGIN, top + 40 + TYPED * number, line)
    return canvas.finish(top + again + MARGIN / 2)


def _card(canvas: Canvas, top: float, height: float, title: str) -> None:
    canvas.card(MARGIN / 2, top, WIDTH - MARGIN / 2, top + height)
    canvas.text(MARGIN, top + 14, title, size=15)


def _draw_grid(
    canvas: Canvas,
    results: Sequence[Result],
    columns: Sequence[str],
    thumbnail: Callable[[int, int], Thumbnail | None],
    top: float,
    cell: int,
) -> None:
    height = len(results) * (cell + 8) + 44
    canvas.card(MARGIN / 2, top, WIDTH - MARGIN / 2, top + height)
    for place, name in enumerate(columns):
        x = MARGIN + NAMES + place * (cell + 6)
        canvas.text(x + cell / 2, top + 12, shortened(name, cell + 4, 12), size=12, anchor="ma")
        for number in range(len(results)):
            _draw_thumbnail(canvas, thumbnail(number, place), x, top + 34 + number * (cell + 8), cell)
    for number, name in enumerate(short_names([result.name for result in results], NAMES - 26)):
        y = top + 34 + number * (cell + 8) + cell / 2
        canvas.dot(MARGIN + 5, y, 5, colour_of(number))
        canvas.text(MARGIN + 16, y, name, anchor="lm")
    canvas.text(MARGIN, top + 12, "framed: judged unsafe", size=11, colour=ALARM)


def _draw_thumbnail(canvas: Canvas, found: Thumbnail | None, left: float, top: float, side: int) -> None:
    if found is None:
        canvas.text(left + side / 2, top + side / 2, "none", size=11, colour=FAINT, anchor="mm")
        return
    picture, is_unsafe = found
    canvas.paste(picture, left, top, side)
    if is_unsafe:
        canvas.frame(left - 1, top - 1, left + side, top + side, ALARM, 2)
