"""The picture of an extraction: what the expert holds of each layer's change, and where the change is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from .merge_picture import (
    GAP,
    INK,
    LINE,
    MARGIN,
    MERGED,
    NAME_LETTERS,
    NORMS,
    PAPER,
    SHARES,
    UNWON,
    WIDTH,
    Panel,
    draw_blocks,
    draw_label,
    plain,
)

if TYPE_CHECKING:
    from ...training.experts.change_facts import ExtractionFacts

KEPT, ROUNDING, CUT = "#7fd88f", "#6b6b78", "#f07178"
_RANKS_SHOWN = 8


def draw_extraction(facts: ExtractionFacts) -> Image.Image:
    """Draw an extraction: a legend, then two panels with a column per layer in the order they run in.

    The upper panel shows where the squared change of each layer went: into the expert (green), into rounding
    of the stored weights (grey), or beyond the rank (red). The lower one shows each layer's share of the
    change of the whole UNet, as high as the largest.

    Args:
        facts: at least one layer.
    """
    step = max(1, WIDTH // len(facts.layers))
    legend = _legend(facts)
    tops = [LINE * (len(legend) + 2), LINE * (len(legend) + 2) + SHARES + GAP]
    size = max(step * len(facts.layers), WIDTH) + 2 * MARGIN, tops[1] + NORMS + GAP
    picture = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(picture)
    for number, (text, colour) in enumerate(legend):
        pen.rectangle([MARGIN, 6 + LINE * number, MARGIN + 10, 16 + LINE * number], fill=colour)
        pen.text((MARGIN + 18, 4 + LINE * number), plain(text)[: 2 * NAME_LETTERS], fill=INK)
    upper, lower = Panel(pen, tops[0], SHARES, step), Panel(pen, tops[1], NORMS, step)
    for panel in (upper, lower):
        draw_blocks(panel, facts.layers)
    most = max(layer.share for layer in facts.layers) or 1.0
    for column, layer in enumerate(facts.layers):
        cut = max(0.0, 1 - layer.kept - layer.rounding)
        upper.stack(column, (layer.kept, layer.rounding, cut), (KEPT, ROUNDING, CUT))
        lower.stack(column, (layer.share / most,), (MERGED,))
    draw_label(upper, "the change of each layer")
    draw_label(lower, f"share of each layer in the whole change, 0 to {100 * most:.2g} %")
    return picture


def _legend(facts: ExtractionFacts) -> list[tuple[str, str]]:
    """Return the lines above the panels, each with the colour of its square."""
    shares = {name: f"{100 * value:.1f} %" for name, value in facts.shares.items()}
    ranks = ", ".join(f"{rank}: {100 * share:.1f} %" for rank, share in facts.by_rank[-_RANKS_SHOWN:])
    return [
        (f"{facts.tuned} against {facts.base}", PAPER),
        (f"{shares['kept']} of the squared change is in the expert", KEPT),
        (f"{shares['rounding']} is rounding of the stored weights", ROUNDING),
        (f"{shares['cut']} is beyond the rank; by rank an expert holds {ranks}", CUT),
        (f"{shares['left_out']} is in {len(facts.left_out)} norms and biases, which no LoRA holds", UNWON),
    ]
