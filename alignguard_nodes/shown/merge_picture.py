"""The picture of a merge: each expert's share of every layer, and the norms of the updates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from ...training.experts.change_facts import ExtractedLayer
    from ...training.experts.merge_facts import LayerFacts, MergeFacts

PAPER, GRID, INK, UNWON, MERGED = "#1b1b1f", "#3a3a42", "#d0d0d8", "#2a2a30", "#ffffff"
COLOURS = ("#7ab8ff", "#ffb454", "#7fd88f", "#f07178", "#c792ea", "#5ccfe6", "#d8dee9", "#b08968")
MARGIN, LINE = 48, 16
WIDTH = 720  # of all layers together, at least
SHARES, NORMS, KEPT, GAP = 160, 110, 50, 44  # heights
NAME_LETTERS = 60


class Panel(NamedTuple):
    """A part of a picture with a column per layer and values from 0 (bottom) to 1 (top)."""

    pen: ImageDraw.ImageDraw
    top: int
    height: int
    step: int

    def left(self, column: int) -> int:
        return MARGIN + column * self.step

    def y(self, value: float) -> float:
        return self.top + self.height * (1 - value)

    def line(self, values: Iterable[float], colour: str) -> None:
        """Draw a value per layer as steps, each as wide as the layer's bar."""
        points = [
            (self.left(column + edge), self.y(value))
            for column, value in enumerate(values)
            for edge in (0, 1)
        ]
        self.pen.line(points, fill=colour)

    def stack(self, column: int, shares: Sequence[float], colours: Sequence[str]) -> None:
        """Stack the shares of a layer, the first at the bottom."""
        right, below = self.left(column + 1) - 1, 0.0
        self.pen.rectangle([self.left(column), self.top, right, self.y(0)], fill=UNWON)
        for share, colour in zip(shares, colours, strict=True):
            if share:
                self.pen.rectangle(
                    [self.left(column), self.y(below + share), right, self.y(below)], fill=colour
                )
            below += share


def draw_merge(facts: MergeFacts) -> Image.Image:
    """Draw a merge: a legend of the members, then panels with a column per layer in the order they run in.

    From top to bottom: each member's share of the layer; the norms before (a line per member) and after
    (white); and the energy kept, if a rank was cut.

    Args:
        facts: at least one layer.
    """
    step = max(1, WIDTH // len(facts.layers))
    is_cut = any(layer.kept < 1 for layer in facts.layers)
    legend = LINE * (len(facts.members) + 3)
    heights = [SHARES, NORMS] + [KEPT] * is_cut
    size = (step * len(facts.layers) + 2 * MARGIN, legend + sum(heights) + GAP * len(heights))
    picture = Image.new("RGB", (max(size[0], WIDTH), size[1]), PAPER)
    pen = ImageDraw.Draw(picture)
    _draw_legend(pen, facts)
    tops = [legend + sum(heights[:i]) + GAP * i for i in range(len(heights))]
    panels = [Panel(pen, top, height, step) for top, height in zip(tops, heights, strict=True)]
    for panel in panels:
        draw_blocks(panel, facts.layers)
    _draw_shares(panels[0], facts)
    _draw_norms(panels[1], facts)
    if is_cut:
        panels[2].line([layer.kept for layer in facts.layers], MERGED)
        draw_label(panels[2], "energy kept, 0 to 1")
    return picture


def _draw_legend(pen: ImageDraw.ImageDraw, facts: MergeFacts) -> None:
    pen.text((MARGIN, 4), f"{facts.method} of {len(facts.members)}", fill=INK)
    for number, (member, colour) in enumerate(
        zip(facts.members, _colours(len(facts.members)), strict=True), start=1
    ):
        y = 4 + LINE * number
        pen.rectangle([MARGIN, y + 2, MARGIN + 10, y + 12], fill=colour)
        name = plain(member.name)[:NAME_LETTERS]
        won = _neurons_won(facts, number - 1)
        text = f"{number} {name}, strength {member.strength:g}{won}  {member.hash[:8]}"
        pen.text((MARGIN + 18, y), text, fill=INK)


def _neurons_won(facts: MergeFacts, member: int) -> str:
    if not facts.has_winners:
        return ""
    won = sum(layer.won[member] for layer in facts.layers if layer.won)
    return f", {100 * won / sum(layer.num_neurons for layer in facts.layers):.1f} % of the neurons"


def draw_blocks(panel: Panel, layers: Sequence[LayerFacts | ExtractedLayer]) -> None:
    """Draw the frame of a panel, and a line with a name where each block of the model begins."""
    bottom, right = panel.y(0), panel.left(len(layers))
    panel.pen.rectangle([MARGIN - 1, panel.top - 1, right, bottom + 1], outline=GRID)
    column = 0
    for block, group in groupby(layers, key=lambda layer: layer.block):
        panel.pen.line([panel.left(column), panel.top, panel.left(column), bottom + 8], fill=GRID)
        count = len(list(group))
        if panel.pen.textlength(block) < count * panel.step:
            panel.pen.text((panel.left(column) + 2, bottom + 3), block, fill=INK)
        column += count


def _draw_shares(panel: Panel, facts: MergeFacts) -> None:
    for column, layer in enumerate(facts.layers):
        shares = layer.shares()
        panel.stack(column, shares, _colours(len(shares)))
    quantity = f"{facts.neurons} won" if facts.has_winners else "squared norm before; experts are mixed"
    draw_label(panel, f"share of each layer: {quantity}")


def _draw_norms(panel: Panel, facts: MergeFacts) -> None:
    ceiling = max(max(layer.before, default=0.0) for layer in facts.layers)
    ceiling = max(ceiling, *(layer.after for layer in facts.layers)) or 1.0
    if all(layer.before for layer in facts.layers):
        for member, colour in enumerate(_colours(len(facts.members))):
            panel.line([layer.before[member] / ceiling for layer in facts.layers], colour)
    panel.line([layer.after / ceiling for layer in facts.layers], MERGED)
    draw_label(panel, f"norm, 0 to {ceiling:.3g}: each expert before, merged (white)")


def draw_label(panel: Panel, text: str) -> None:
    """Write what a panel shows above it."""
    panel.pen.text((MARGIN, panel.top - LINE + 2), text, fill=INK)


def _colours(count: int) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]


def plain(text: str) -> str:
    """Return text with only the letters of the built-in font."""
    return text.encode("latin-1", "replace").decode("latin-1")
