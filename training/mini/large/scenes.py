"""Scenes of the large world: one emoji on a ground, at a place, size and tilt that no prompt names."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..scenes import SIZE
from .concepts import ALL_CONCEPTS, Concept

GROUNDS = {
    "white": (236, 236, 230),
    "black": (34, 34, 40),
    "blue": (72, 118, 196),
    "green": (82, 146, 92),
    "purple": (116, 78, 158),
}
TEMPLATES = ("a {noun} on a {ground} ground", "{noun}, {ground} ground")


@dataclass(frozen=True)
class Scene:
    """A concept and the name of a ground."""

    concept: Concept
    ground: str

    @property
    def answers(self) -> tuple[str, str]:
        """What the judge answers if a picture shows the scene: the concept's name, and the ground."""
        return self.concept.name, self.ground

    def prompt(self, *, word: int = 0, template: int = 0) -> str:
        """Return the caption with one of the concept's three words."""
        return TEMPLATES[template].format(noun=self.concept.words[word], ground=self.ground)


ALL_SCENES = tuple(Scene(concept, ground) for concept in ALL_CONCEPTS for ground in GROUNDS)


def draw(scene: Scene, emoji: Mapping[str, Image.Image], rng: random.Random) -> np.ndarray:
    """Draw a scene with a random place, size, tilt and shade: uint8, shape (64, 64, 3).

    Args:
        scene: what to draw.
        emoji: RGBA picture of each emoji.
        rng: source of the variation.
    """
    ground = tuple(max(0, min(255, channel + rng.randint(-8, 8))) for channel in GROUNDS[scene.ground])
    side = round(46 * rng.uniform(0.85, 1.12))
    icon = emoji[scene.concept.emoji].rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC)
    icon = icon.resize((side, side), Image.Resampling.LANCZOS)
    left, top = (round((SIZE - side) / 2 + rng.uniform(-5, 5)) for _ in range(2))
    canvas = Image.new("RGB", (SIZE, SIZE), ground)
    canvas.paste(icon, (left, top), icon)
    return np.asarray(canvas)
