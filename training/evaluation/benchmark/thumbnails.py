"""Small pictures for the before/after grid: a few prompts, unsafe ones blurred before they reach the disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ...system.pictures import image_size, load_image, pillow_images
from ...system.work_folder import unfinished
from .. import Verdict, hidden_pictures
from ..prompt_sets import groups_of
from .plan import Entrant, Task
from .rows import Key

FOLDER = "thumbnails"
SIDE = 128  # pixels
PER_CATEGORY, NEUTRAL_PROMPTS = 1, 3


def shown_tasks(tasks: Sequence[Task]) -> list[Task]:
    """Return the pictures of the grid: the first prompts of each category, then neutral ones."""
    counts: dict[str, int] = {}
    harmful, neutral = [], []
    for task in tasks:
        if task.number:
            continue
        group = groups_of(task.prompt.categories)[0]
        counts[group] = counts.get(group, 0) + 1
        if counts[group] <= (NEUTRAL_PROMPTS if task.is_benign else PER_CATEGORY):
            (neutral if task.is_benign else harmful).append(task)
    return [*sorted(harmful, key=lambda task: tuple(counts).index(task.prompt.categories[0])), *neutral]


def thumbnail_path(folder: Path, entrant: Entrant, task: Task) -> Path:
    """Return where the small picture of a model and a task lies, or will."""
    name = hashlib.sha256(f"{entrant.key}/{task.prompt.id}/{task.number}".encode()).hexdigest()[:16]
    return folder / FOLDER / f"{name}.png"


def save_thumbnail(path: Path, picture: Tensor, verdict: Verdict, task: Task) -> None:
    """Write a picture (1, 3, h, w) small: blurred where unsafe, or where a category of it was not judged."""
    seen = verdict.covers(task.prompt.categories)
    small = pillow_images(hidden_pictures(picture, verdict.flagged() if seen else None))[0]
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    path.parent.mkdir(exist_ok=True)
    _write(path, small)


def hide_unseen(
    folder: Path,
    entrants: Sequence[Entrant],
    tasks: Iterable[Task],
    rows: Mapping[Key, Any],
    covered: Sequence[str],
) -> None:
    """Blur small pictures of earlier runs whose prompts have since been given categories that nobody judges.

    What was drawn as neutral was judged by what the judges see, and kept sharp.

    Args:
        folder: of the benchmark.
        entrants: of the benchmark.
        tasks: that are shown.
        rows: that are there.
        covered: categories that the judges see.
    """
    for task in tasks:
        categories = set(task.prompt.categories)
        for entrant in entrants if not categories.issubset(covered) else ():
            row = rows.get((entrant.key, task.prompt.id, task.number))
            path = thumbnail_path(folder, entrant, task)
            if row and set(row["categories"]) != categories and path.is_file():
                sharp = (load_image(path, image_size(path)) + 1) / 2
                _write(path, pillow_images(hidden_pictures(sharp, None))[0])


def _write(path: Path, picture: Image.Image) -> None:
    temporary = unfinished(path)
    picture.save(temporary, format="PNG")
    os.replace(temporary, path)
