"""Preference pairs drawn by the mini model itself, as in AlignGuard's recipe: same seed, two prompts."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from .judge import Judge
from .scenes import NEUTRAL_ICONS, SAFE_TWINS, UNSAFE_ICONS, Scene, render_latents, scenes_of

PAIRS_PER_CATEGORY = 48
BATCH = 32
HELD_OUT = 3  # every third scene of an icon is in no pair, to measure generalisation


def slug(category: str) -> str:
    """Return a category as a file name, `illegal activity` -> `illegal_activity`."""
    return category.replace(" ", "_").replace("-", "_")


def trained_scenes(icon: str) -> list[Scene]:
    """Return the scenes of an icon that pairs and neutral samples may use."""
    return [scene for number, scene in enumerate(scenes_of(icon)) if number % HELD_OUT]


def neutral_scenes() -> list[Scene]:
    """Return the scenes that no expert may change: neutral icons and safe twins."""
    per_icon = [trained_scenes(icon) for icon in (*NEUTRAL_ICONS, *SAFE_TWINS.values())]
    return [scene for row in zip(*per_icon, strict=True) for scene in row]  # icons alternate


def write_pairs(
    folder: Path,
    category: str,
    *,
    count: int,
    draw: Callable[[Sequence[str], Sequence[int]], Tensor],
    judge: Judge,
) -> int:
    """Draw and write the pairs of one category and its neutral pictures, as a folder that `load_pairs` reads.

    A pair is left out if the judge does not see the unsafe icon in the loser and the safe icon in the winner.

    Args:
        folder: new folder for `pairs.jsonl`, `neutral.jsonl` and the pictures.
        category: one of the seven.
        count: number of pairs and of neutral pictures to draw.
        draw: takes prompts and seeds and returns pictures, (len, 3, 64, 64) in [-1, 1].
        judge: judge of mini scenes.

    Returns:
        Number of pairs kept.
    """
    scenes = _cycle(trained_scenes(UNSAFE_ICONS[category]), count)
    seeds = [_seed(category, number) for number in range(count)]
    losers = draw([scene.prompt() for scene in scenes], seeds)
    winners = draw([scene.safe_twin().prompt() for scene in scenes], seeds)
    verdicts = zip(judge.look(losers), judge.look(winners), strict=True)
    rows = []
    for number, (loser_verdict, winner_verdict) in enumerate(verdicts):
        scene = scenes[number]
        if not (loser_verdict.shows(scene) and winner_verdict.shows(scene.safe_twin())):
            continue
        name = f"{slug(category)}_{number:04d}"
        _save(folder / f"u_{name}.png", losers[number])
        _save(folder / f"s_{name}.png", winners[number])
        rows.append(_pair_row(name, category, scene))
    _write_lines(folder / "neutral.jsonl", _neutral_rows(folder, category, count, draw))
    _write_lines(folder / "pairs.jsonl", rows)
    return len(rows)


def make_draw(
    unet, autoencoder, embeds: dict[str, Tensor]
) -> Callable[[Sequence[str], Sequence[int]], Tensor]:
    """Return a function from prompts and seeds to pictures.

    Args:
        unet: a mini UNet.
        autoencoder: diffusers AutoencoderTiny.
        embeds: embedding, (77, 768), of every prompt that will be drawn and of the empty prompt.
    """

    @torch.no_grad()
    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        parts = []
        for start in range(0, len(prompts), BATCH):
            texts = torch.stack([embeds[prompt] for prompt in prompts[start : start + BATCH]])
            latents = render_latents(unet, texts, embeds[""][None], seeds[start : start + BATCH])
            parts.append(autoencoder.decode(latents).sample.clamp(-1, 1))
        return torch.cat(parts)

    return draw


def prompts_of(categories: Sequence[str], count: int) -> list[str]:
    """Return every prompt needed to draw `count` pairs of these categories, the empty prompt first."""
    scenes = [scene for category in categories for scene in trained_scenes(UNSAFE_ICONS[category])]
    scenes += [scene.safe_twin() for scene in scenes] + neutral_scenes()[:count]
    return ["", *dict.fromkeys(scene.prompt() for scene in scenes)]


def _pair_row(name: str, category: str, scene: Scene) -> dict:
    return {
        "id": name,
        "category": [category],
        "unsafe_prompt": scene.prompt(),
        "safe_prompt": scene.safe_twin().prompt(),
        "unsafe_image": f"u_{name}.png",
        "safe_image": f"s_{name}.png",
    }


def _neutral_rows(folder: Path, category: str, count: int, draw) -> Iterator[dict]:
    scenes = _cycle(neutral_scenes(), count)
    pictures = draw(
        [scene.prompt() for scene in scenes], [_seed(f"{category} neutral", n) for n in range(count)]
    )
    for number, (scene, picture) in enumerate(zip(scenes, pictures, strict=True)):
        name = f"n_{slug(category)}_{number:04d}"
        _save(folder / f"{name}.png", picture)
        yield {"id": name, "prompt": scene.prompt(), "image": f"{name}.png"}


def _cycle(scenes: Sequence[Scene], count: int) -> list[Scene]:
    return [scenes[number % len(scenes)] for number in range(count)]


def _seed(name: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"mini pairs {name} {number}".encode()).digest()[:6], "big")


def _save(path: Path, picture: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = ((picture + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(path)


def _write_lines(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
