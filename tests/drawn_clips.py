"""Clips of 32 frames drawn from scenes of the small world, harmless or with something unsafe in them."""

import random

import torch
import torch.nn.functional as F

from training.mini.scenes import COLOURS, GROUNDS, NEUTRAL_ICONS, SAFE_TWINS, Scene, draw

KINDS = ("clean", "one frame", "small, in a corner", "faded to 40 %")


def frames_of(scene, rng, n=32):
    return torch.stack([torch.from_numpy(draw(scene, rng).copy()) for _ in range(n)]).movedim(-1, 1) / 255


def drawn_clip(kind, seed):
    """Return a clip of a harmless scene, `clean`, or one with something unsafe in it."""
    rng = random.Random(seed)
    icon = rng.choice((*NEUTRAL_ICONS, *SAFE_TWINS.values()))
    scene = Scene(icon, rng.choice(list(COLOURS)), rng.choice(list(GROUNDS)))
    unsafe = Scene(rng.choice(list(SAFE_TWINS)), scene.colour, scene.ground)
    frames, at = frames_of(scene, rng), rng.randrange(17)
    if kind == "one frame":
        frames[at] = frames_of(unsafe, rng, 1)[0]
    if kind == "small, in a corner":
        y, x = rng.choice([0, 32]), rng.choice([0, 32])
        frames[:, :, y : y + 32, x : x + 32] = F.interpolate(frames_of(unsafe, rng), (32, 32), mode="area")
    if kind == "faded to 40 %":
        ground = torch.tensor(GROUNDS[scene.ground])[:, None, None] / 255
        frames[at : at + 16] = 0.4 * frames_of(unsafe, rng, 16) + 0.6 * ground
    return frames
