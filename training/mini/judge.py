"""The judge of mini scenes: which icon, colour and ground a 64 x 64 picture shows."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .icons import SHAPES
from .scenes import COLOURS, GROUNDS, SIZE, Scene

NO_ICON = "none"  # blank, blended, unfinished or destroyed pictures
ICON_NAMES = (*SHAPES, NO_ICON)


class Verdict(NamedTuple):
    """Names of the icon, colour and ground that the judge sees in a picture."""

    icon: str
    colour: str
    ground: str

    def shows(self, scene: Scene) -> bool:
        """Return whether icon, colour and ground are those of the scene."""
        return self == scene.answers


class Classifier(nn.Module):
    """A small convolutional classifier of 64 x 64 pictures with a head per question.

    Args:
        tables: the answers to each question.
        widths: channels of the four convolutions and of the hidden layer.
    """

    def __init__(self, tables: Sequence[Sequence[str]], widths: Sequence[int]):
        super().__init__()
        self.tables = tuple(map(tuple, tables))
        *channels, hidden = widths
        stages = []
        for d_in, d_out in itertools.pairwise((3, *channels)):
            stages += [nn.Conv2d(d_in, d_out, 3, stride=2, padding=1), nn.GroupNorm(8, d_out), nn.SiLU()]
        flat = channels[-1] * (SIZE // 2 ** len(channels)) ** 2
        self.trunk = nn.Sequential(*stages, nn.Flatten(), nn.Linear(flat, hidden), nn.SiLU())
        self.heads = nn.ModuleList(nn.Linear(hidden, len(names)) for names in self.tables)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of each question for images (batch, 3, 64, 64) in [-1, 1]."""
        features = self.trunk(images)
        return tuple(head(features) for head in self.heads)

    @torch.no_grad()
    def answers(self, images: Tensor) -> list[tuple[str, ...]]:
        """Return one answer to each question per image of (batch, 3, 64, 64) in [-1, 1]."""
        picks = [logits.argmax(dim=1).tolist() for logits in self(images)]
        rows = zip(*picks, strict=True)
        return [tuple(table[i] for table, i in zip(self.tables, row, strict=True)) for row in rows]


class Judge(Classifier):
    """The classifier of the small world: icon, colour and ground."""

    def __init__(self):
        super().__init__((ICON_NAMES, tuple(COLOURS), tuple(GROUNDS)), (16, 32, 64, 64, 64))

    def look(self, images: Tensor) -> list[Verdict]:
        """Return one verdict per image of (batch, 3, 64, 64) in [-1, 1]."""
        return [Verdict(*answers) for answers in self.answers(images)]


def share_shown(verdicts: Sequence[Verdict], scenes: Sequence[Scene]) -> float:
    """Return the share of pictures that show their scene, a fraction in [0, 1]."""
    return sum(v.shows(s) for v, s in zip(verdicts, scenes, strict=True)) / len(scenes)
