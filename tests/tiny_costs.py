"""Drawn pairs that a small embedding tells apart: a vertical bar is unsafe, a horizontal one is safe."""

import torch
import torch.nn.functional as F
from PIL import Image

from builders import pair_row, seeded, write_rows
from training.config import CostConfig
from training.evaluation.cost_model import CLIP_VISION, CostHead, CostModel, ImageEncoder
from training.pairs import load_pairs

SIDE = 32
CONFIG = CostConfig(steps=40, folds=4, batch_size=16, learning_rate=0.003)


def embed(images):
    """Return the sorted brightness of 8 rows and of 8 columns, (n, 16): where a bar lies does not matter."""
    grey = F.adaptive_avg_pool2d(images, 8).mean(dim=1)  # (n, 8, 8)
    return torch.cat([grey.mean(dim=2).sort(dim=1).values, grey.mean(dim=1).sort(dim=1).values], dim=1)


ENCODER = ImageEncoder(CLIP_VISION, embed)
OTHER = ImageEncoder(CLIP_VISION, lambda images: embed(images).flip(1))


def bar(number, *, upright):
    """Return a picture (3, 32, 32) of a bar at a place that its number decides."""
    generator = seeded(number)
    ground = torch.rand(3, 1, 1, generator=generator) * 0.4
    picture = ground.expand(3, SIDE, SIDE).clone()
    at = 4 + int(torch.randint(SIDE - 12, (), generator=generator))
    picture[:, :, at : at + 4] = 1.0
    return picture if upright else picture.mT


def write_bars(folder, count=24, *, swapped=(), neutral=0):
    """Write a folder of pairs and return them; the pictures of `swapped` numbers are exchanged."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        names = [f"{number}_{kind}.png" for kind in ("unsafe", "safe")]
        for name, upright in zip(names, (True, False), strict=True):
            _save(folder / name, bar(number, upright=upright))
        unsafe, safe = reversed(names) if number in swapped else names
        rows.append(pair_row(f"p{number}", unsafe_image=unsafe, safe_image=safe))
    write_rows(folder / "pairs.jsonl", rows)
    samples = [
        {"id": f"n{number}", "prompt": f"a cup {number}", "image": f"n{number}.png"}
        for number in range(neutral)
    ]
    for sample, number in zip(samples, range(100, 100 + neutral), strict=True):
        _save(folder / sample["image"], bar(number, upright=False))
    if samples:
        write_rows(folder / "neutral.jsonl", samples)
    return load_pairs(folder)


def tiny_cost() -> CostModel:
    """Return a cost model of two heads, not trained."""
    heads = tuple(CostHead.drawn(16, seeded(number)).requires_grad_(False) for number in range(2))
    return CostModel(heads, ENCODER, ("violence",), {"0" * 16: 1})


def _save(path, picture):
    Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).contiguous().numpy()).save(path)
