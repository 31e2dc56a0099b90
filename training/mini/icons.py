"""Twenty drawn icons on a unit square: seven stand-ins for harm, seven safe twins, six neutral.

A stand-in is an ordinary drawing that plays the role of a harmful picture, so that training, merging and
measuring can be shown without one. A shape is a list of strokes in the order in which they are painted, in
the icon's colour or, for a hole, in the ground's.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

Point = tuple[float, float]


class Stroke(NamedTuple):
    """A filled polygon with corners in [0, 1], y downwards; a hole shows the ground."""

    points: list[Point]
    hole: bool = False


def _ellipse(cx: float, cy: float, rx: float, ry: float, start: float = 0, end: float = 360) -> list[Point]:
    steps = 36
    angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
    return [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles]


def _box(left: float, top: float, right: float, bottom: float) -> list[Point]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _star(cx: float, cy: float, outer: float, inner: float, tips: int) -> list[Point]:
    radii = [outer if i % 2 == 0 else inner for i in range(2 * tips)]
    angles = [math.pi * i / tips - math.pi / 2 for i in range(2 * tips)]
    return [(cx + r * math.cos(a), cy + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def _flame() -> list[Stroke]:
    outer = [(0.5, 0.0), (0.66, 0.2), (0.74, 0.38), (0.84, 0.3), (0.9, 0.62), (0.78, 0.9), (0.5, 1.0)]
    outer += [(0.22, 0.9), (0.1, 0.62), (0.2, 0.34), (0.3, 0.46), (0.38, 0.24)]
    return [
        Stroke(outer),
        Stroke([(0.5, 0.55), (0.64, 0.76), (0.58, 0.92), (0.42, 0.92), (0.36, 0.76)], True),
    ]


def _flower() -> list[Stroke]:
    angles = [math.radians(72 * i - 90) for i in range(5)]
    petals = [
        Stroke(_ellipse(0.5 + 0.27 * math.cos(a), 0.5 + 0.27 * math.sin(a), 0.22, 0.22)) for a in angles
    ]
    return [*petals, Stroke(_ellipse(0.5, 0.5, 0.13, 0.13), True)]


def _bolt() -> list[Stroke]:
    zigzag = [(0.6, 0.0), (0.2, 0.56), (0.45, 0.56), (0.32, 1.0), (0.82, 0.38), (0.55, 0.38), (0.78, 0.0)]
    return [Stroke(zigzag)]


def _bell() -> list[Stroke]:
    skirt = [(0.24, 0.4), (0.76, 0.4), (0.8, 0.66), (0.96, 0.82), (0.04, 0.82), (0.2, 0.66)]
    return [
        Stroke(_ellipse(0.5, 0.38, 0.26, 0.28)),
        Stroke(skirt),
        Stroke(_ellipse(0.5, 0.9, 0.11, 0.1)),
        Stroke(_ellipse(0.5, 0.08, 0.07, 0.08)),
    ]


def _sword() -> list[Stroke]:
    blade = [(0.5, 0.0), (0.59, 0.12), (0.59, 0.66), (0.41, 0.66), (0.41, 0.12)]
    return [Stroke(blade), Stroke(_box(0.18, 0.66, 0.82, 0.76)), Stroke(_box(0.44, 0.76, 0.56, 1.0))]


def _umbrella() -> list[Stroke]:
    scallops = [Stroke(_ellipse(x, 0.52, 0.16, 0.1), True) for x in (0.18, 0.5, 0.82)]
    hook = [
        Stroke(_box(0.46, 0.4, 0.54, 0.9)),
        Stroke(_box(0.46, 0.88, 0.76, 0.98)),
        Stroke(_box(0.68, 0.78, 0.76, 0.98)),
    ]
    return [Stroke(_ellipse(0.5, 0.52, 0.5, 0.5, 180, 360)), *scallops, *hook]


def _spider() -> list[Stroke]:
    legs = []
    for side in (-1, 1):
        for knee, foot in ((0.12, 0.0), (0.34, 0.3), (0.64, 0.72), (0.84, 1.0)):
            x = [0.5, 0.5 + side * 0.32, 0.5 + side * 0.5]
            legs.append(Stroke([(x[0], 0.46), (x[1], knee), (x[2], foot), (x[1], knee + 0.09), (x[0], 0.56)]))
    return [*legs, Stroke(_ellipse(0.5, 0.56, 0.2, 0.24)), Stroke(_ellipse(0.5, 0.3, 0.12, 0.12))]


def _butterfly() -> list[Stroke]:
    wings = [Stroke(_ellipse(x, 0.3, 0.24, 0.26)) for x in (0.24, 0.76)]
    wings += [Stroke(_ellipse(x, 0.74, 0.18, 0.2)) for x in (0.3, 0.7)]
    spots = [Stroke(_ellipse(x, 0.3, 0.09, 0.1), True) for x in (0.22, 0.78)]
    return [*wings, *spots, Stroke(_ellipse(0.5, 0.5, 0.06, 0.42))]


def _padlock() -> list[Stroke]:
    shackle = [Stroke(_ellipse(0.5, 0.38, 0.3, 0.38)), Stroke(_ellipse(0.5, 0.4, 0.17, 0.25), True)]
    keyhole = [Stroke(_ellipse(0.5, 0.64, 0.08, 0.08), True), Stroke(_box(0.46, 0.66, 0.54, 0.86), True)]
    return [*shackle, Stroke(_box(0.12, 0.44, 0.88, 1.0)), *keyhole]


def _house() -> list[Stroke]:
    walls = [Stroke([(0.5, 0.0), (1.0, 0.46), (0.0, 0.46)]), Stroke(_box(0.14, 0.46, 0.86, 1.0))]
    return [*walls, Stroke(_box(0.4, 0.62, 0.6, 1.0), True)]


def _skull() -> list[Stroke]:
    eyes = [Stroke(_ellipse(x, 0.42, 0.13, 0.14), True) for x in (0.3, 0.7)]
    teeth = [Stroke(_box(x, 0.84, x + 0.05, 1.0), True) for x in (0.38, 0.57)]
    nose = Stroke([(0.5, 0.54), (0.57, 0.68), (0.43, 0.68)], True)
    return [Stroke(_ellipse(0.5, 0.4, 0.46, 0.4)), Stroke(_box(0.24, 0.62, 0.76, 1.0)), *eyes, nose, *teeth]


def _smiley() -> list[Stroke]:
    eyes = [Stroke(_ellipse(x, 0.36, 0.07, 0.1), True) for x in (0.34, 0.66)]
    mouth = _ellipse(0.5, 0.54, 0.32, 0.32, 0, 180) + _ellipse(0.5, 0.54, 0.32, 0.14, 180, 0)
    return [Stroke(_ellipse(0.5, 0.5, 0.5, 0.5)), *eyes, Stroke(mouth, True)]


def _mask() -> list[Stroke]:
    outer = [
        (0.0, 0.3),
        (0.5, 0.38),
        (1.0, 0.3),
        (0.94, 0.6),
        (0.7, 0.74),
        (0.5, 0.58),
        (0.3, 0.74),
        (0.06, 0.6),
    ]
    return [Stroke(outer), *(Stroke(_ellipse(x, 0.5, 0.12, 0.08), True) for x in (0.27, 0.73))]


def _hat() -> list[Stroke]:
    brim = _ellipse(0.5, 0.8, 0.5, 0.12)
    return [Stroke(brim), Stroke(_box(0.24, 0.14, 0.76, 0.8)), Stroke(_box(0.24, 0.56, 0.76, 0.66), True)]


def _moon() -> list[Stroke]:
    return [Stroke(_ellipse(0.5, 0.5, 0.5, 0.5)), Stroke(_ellipse(0.68, 0.42, 0.42, 0.42), True)]


def _tree() -> list[Stroke]:
    tiers = [((0.5, 0.0), 0.26, 0.34), ((0.5, 0.2), 0.36, 0.58), ((0.5, 0.42), 0.46, 0.84)]
    crown = [Stroke([top, (0.5 + half, base), (0.5 - half, base)]) for top, half, base in tiers]
    return [*crown, Stroke(_box(0.42, 0.84, 0.58, 1.0))]


def _fish() -> list[Stroke]:
    tail = Stroke([(0.66, 0.5), (1.0, 0.22), (1.0, 0.78)])
    return [Stroke(_ellipse(0.4, 0.5, 0.4, 0.27)), tail, Stroke(_ellipse(0.2, 0.43, 0.06, 0.06), True)]


def _cup() -> list[Stroke]:
    handle = [Stroke(_ellipse(0.74, 0.46, 0.26, 0.24)), Stroke(_ellipse(0.74, 0.46, 0.13, 0.12), True)]
    return [*handle, Stroke([(0.04, 0.12), (0.74, 0.12), (0.66, 0.9), (0.12, 0.9)])]


def _boat() -> list[Stroke]:
    sails = [
        Stroke([(0.46, 0.0), (0.46, 0.64), (0.06, 0.64)]),
        Stroke([(0.54, 0.16), (0.92, 0.64), (0.54, 0.64)]),
    ]
    return [*sails, Stroke([(0.0, 0.72), (1.0, 0.72), (0.8, 1.0), (0.2, 1.0)])]


def _five_point_star() -> list[Stroke]:
    return [Stroke(_star(0.5, 0.54, 0.54, 0.22, 5))]


SHAPES: dict[str, Callable[[], list[Stroke]]] = {
    "flame": _flame,
    "bolt": _bolt,
    "sword": _sword,
    "spider": _spider,
    "padlock": _padlock,
    "skull": _skull,
    "mask": _mask,
    "flower": _flower,
    "bell": _bell,
    "umbrella": _umbrella,
    "butterfly": _butterfly,
    "house": _house,
    "smiley": _smiley,
    "hat": _hat,
    "star": _five_point_star,
    "moon": _moon,
    "tree": _tree,
    "fish": _fish,
    "cup": _cup,
    "boat": _boat,
}
