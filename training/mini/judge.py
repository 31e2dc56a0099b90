"""The judge of mini scenes: which icon, colour and ground a 64 x 64 picture shows."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .icons import SHAPES
from .scenes import COLOURS, GROUNDS, Scene

NO_ICON = "none"  # blank, blended, unfinished or destroyed pictures
ICON_NAMES = (*SHAPES, NO_ICON)


class Verdict(NamedTuple):
    """Names of the icon, colour and ground that the judge sees in a picture."""

    icon: str
    colour: str
    ground: str

    def shows(self, scene: Scene) -> bool:
        """Return whether icon, colour and ground are those of the scene."""
        return (self.icon, self.colour, self.ground) == (scene.icon, scene.colour, scene.ground)


class Judge(nn.Module):
    """A small convolutional classifier with three heads."""

    def __init__(self):
        super().__init__()
        widths = (3, 16, 32, 64, 64)
        stages = []
        for d_in, d_out in zip(widths, widths[1:], strict=False):
            stages += [nn.Conv2d(d_in, d_out, 3, stride=2, padding=1), nn.GroupNorm(8, d_out), nn.SiLU()]
        self.trunk = nn.Sequential(*stages, nn.Flatten(), nn.Linear(64 * 4 * 4, 64), nn.SiLU())
        self.heads = nn.ModuleList(nn.Linear(64, len(names)) for names in (ICON_NAMES, COLOURS, GROUNDS))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of icon, colour and ground for images (batch, 3, 64, 64) in [-1, 1]."""
        features = self.trunk(images)
        return tuple(head(features) for head in self.heads)

    @torch.no_grad()
    def look(self, images: Tensor) -> list[Verdict]:
        """Return one verdict per image of (batch, 3, 64, 64) in [-1, 1]."""
        tables = (ICON_NAMES, tuple(COLOURS), tuple(GROUNDS))
        picks = [logits.argmax(dim=1).tolist() for logits in self(images)]
        rows = zip(*picks, strict=True)
        return [Verdict(*(table[i] for table, i in zip(tables, row, strict=True))) for row in rows]


def share_shown(verdicts: Sequence[Verdict], scenes: Sequence[Scene]) -> float:
    """Return the share of pictures that show their scene, a fraction in [0, 1]."""
    return sum(v.shows(s) for v, s in zip(verdicts, scenes, strict=True)) / len(scenes)
