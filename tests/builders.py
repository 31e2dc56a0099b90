"""Builders that several tests share: experts, pictures and pairs folders, as small as they can be."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from training.experts.expert import SafetyExpert
from training.experts.low_rank import LowRank
from training.pairs.pair import PreferencePair

# experts


def seeded(seed: int) -> torch.Generator:
    """Return a generator that starts at a seed."""
    return torch.Generator().manual_seed(seed)


def random_layer(generator: torch.Generator, d_out: int, d_in: int, rank: int = 2) -> LowRank:
    """Return a layer of standard normal factors, `up` drawn first."""
    up = torch.randn(d_out, rank, generator=generator)
    return LowRank(up, torch.randn(rank, d_in, generator=generator))


def layers_of_shapes(
    shapes: Mapping[str, tuple[int, int]], generator: torch.Generator, rank: int = 2
) -> dict[str, LowRank]:
    """Return random layers, drawn in the order of `shapes`: module -> (d_out, d_in)."""
    return {module: random_layer(generator, *shape, rank) for module, shape in shapes.items()}


def expert_of(
    layers: Mapping[str, LowRank],
    *categories: str,
    name: str = "",
    family: str = "sd15",
    metadata: Mapping[str, str] | None = None,
) -> SafetyExpert:
    """Return an expert; unless it gets a name, it has that of its first category, or `expert`."""
    name = name or next(iter(categories), "expert")
    return SafetyExpert(dict(layers), categories, family, dict(metadata or {}), name)


# pictures


def write_picture(
    path: Path, colour: str | tuple[int, int, int] = (0, 0, 0), size: tuple[int, int] = (8, 8)
) -> Path:
    """Write a PNG of one colour, whatever the ending of its name; `size` is width, height in pixels."""
    Image.new("RGB", size, colour).save(path, format="PNG")
    return path


# pairs


def pair_row(name: str, **changes: Any) -> dict[str, Any]:
    """Return a row of pairs.jsonl, some of its fields changed."""
    fields = {
        "id": name,
        "category": "hate",
        "unsafe_prompt": f"a skull {name}",
        "safe_prompt": f"a flower {name}",
        "unsafe_image": f"{name}_unsafe.png",
        "safe_image": f"{name}_safe.png",
    }
    return fields | changes


def write_rows(path: Path, rows: Iterable[Mapping[str, Any] | str]) -> Path:
    """Write rows as JSON, one a line; a string is written as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> Path:
    """Write rows as CSV, the first of them the names of the columns."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def coprov2_names(number: int) -> tuple[str, str]:
    """Return the file names of the unsafe and the safe picture of a pair, as in CoProV2."""
    return f"u_idx_{number:07d}_0.jpg", f"s_idx_{number:07d}_0.jpg"


def preference_pair(
    number: int,
    categories: tuple[str, ...] = ("hate",),
    unsafe_prompt: str = "unsafe",
    safe_prompt: str = "safe",
    folder: Path = Path(),
) -> PreferencePair:
    """Return a pair; the winner of number 3 is `w3.png` in the folder, its loser `l3.png`."""
    files = folder / f"w{number}.png", folder / f"l{number}.png"
    return PreferencePair(str(number), categories, unsafe_prompt, safe_prompt, *files)
