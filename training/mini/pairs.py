"""Preference pairs drawn by a mini model itself, as in AlignGuard's recipe: same seed, two prompts.

A folder of pairs holds nothing else: what shows how well everything else is kept, such as the neutral icons,
is never in what training may keep.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from .judge import Classifier
from .scenes import NEUTRAL_ICONS, SAFE_TWINS, UNSAFE_ICONS, Scene, render_latents, scenes_of

PAIRS_PER_CATEGORY = 48
BATCH = 32
HELD_OUT = 3  # every third scene of an icon is in no pair, to measure generalisation

Draw = Callable[[Sequence[str], Sequence[int]], Tensor]  # prompts, seeds -> (len, 3, 64, 64) in [-1, 1]


class Asked(NamedTuple):
    """A picture to draw: its prompt, and the judge's answers if the picture shows what was asked for."""

    prompt: str
    answers: tuple[str, ...]


class PairToDraw(NamedTuple):
    """The loser and the winner of a pair, before they are drawn."""

    unsafe: Asked
    safe: Asked


def slug(category: str) -> str:
    """Return a category as a file name, `illegal activity` -> `illegal_activity`."""
    return category.replace(" ", "_").replace("-", "_")


def trained_scenes(icon: str) -> list[Scene]:
    """Return the scenes of an icon of the small world that pairs may use."""
    return [scene for number, scene in enumerate(scenes_of(icon)) if number % HELD_OUT]


def held_out_scenes(icon: str) -> list[Scene]:
    """Return the scenes of an icon of the small world that are in no pair."""
    return [scene for number, scene in enumerate(scenes_of(icon)) if not number % HELD_OUT]


def safe_scenes() -> list[Scene]:
    """Return the scenes of all winners of the small world; the icons alternate."""
    per_icon = [trained_scenes(icon) for icon in SAFE_TWINS.values()]
    return [scene for row in zip(*per_icon, strict=True) for scene in row]


def pairs_to_draw(category: str, count: int) -> list[PairToDraw]:
    """Return the pairs of a category of the small world; scenes repeat where there are too few."""
    scenes = trained_scenes(UNSAFE_ICONS[category])
    chosen = [scenes[number % len(scenes)] for number in range(count)]
    return [
        PairToDraw(*(Asked(side.prompt(), side.answers) for side in (scene, scene.safe_twin())))
        for scene in chosen
    ]


def prompts_of(pairs: Sequence[PairToDraw]) -> list[str]:
    """Return every prompt needed to draw these pairs, each once, the empty prompt first."""
    return ["", *dict.fromkeys(asked.prompt for pair in pairs for asked in pair)]


def write_pairs(
    folder: Path, category: str, pairs: Sequence[PairToDraw], *, draw: Draw, judge: Classifier
) -> int:
    """Draw and write the pairs of one category, as a folder that `load_pairs` reads.

    Args:
        folder: new folder for `pairs.jsonl` and the pictures.
        category: category of the losers.
        pairs: what to draw; a pair is left out if the judge does not see in both pictures what was asked for.
        draw: takes prompts and seeds and returns pictures; both pictures of a pair get the same seed.
        judge: judge of the world.

    Returns:
        Number of pairs kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seeds = [_seed(category, number) for number in range(len(pairs))]
    losers, winners = (draw([asked.prompt for asked in side], seeds) for side in zip(*pairs, strict=True))
    verdicts = zip(judge.answers(losers), judge.answers(winners), strict=True)
    rows = []
    for number, (pair, answers) in enumerate(zip(pairs, verdicts, strict=True)):
        if answers != (pair.unsafe.answers, pair.safe.answers):
            continue
        name = f"{slug(category)}_{number:04d}"
        _save(folder / f"u_{name}.png", losers[number])
        _save(folder / f"s_{name}.png", winners[number])
        rows.append(_row(name, category, pair))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "pairs.jsonl").write_text(lines, encoding="utf-8")
    return len(rows)


def neutral_prompts() -> list[str]:
    """Return a prompt for every scene of a neutral icon; icons take turns."""
    return [scene.prompt() for row in zip(*map(scenes_of, NEUTRAL_ICONS), strict=True) for scene in row]


def make_draw(unet, autoencoder, embeds: dict[str, Tensor]) -> Draw:
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


def _row(name: str, category: str, pair: PairToDraw) -> dict:
    return {
        "id": name,
        "category": [category],
        "unsafe_prompt": pair.unsafe.prompt,
        "safe_prompt": pair.safe.prompt,
        "unsafe_image": f"u_{name}.png",
        "safe_image": f"s_{name}.png",
    }


def _seed(category: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"mini pairs {category} {number}".encode()).digest()[:6], "big")


def _save(path: Path, picture: Tensor) -> None:
    pixels = ((picture + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(path)
