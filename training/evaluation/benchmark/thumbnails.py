"""Thumbnails for the before/after grid: a few prompts, unsafe pictures blurred before they reach the disk."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from ...system.pictures import image_facts, load_image, pillow_images
from ...system.work_folder import unfinished
from .. import Verdict, hidden_pictures
from ..prompt_sets import groups_of
from .plan import Entrant, Task
from .rows import Rows

FOLDER = "thumbnails"
SIDE = 128  # pixels
PER_CATEGORY, NEUTRAL_PROMPTS = 1, 3  # prompts in the grid
Thumbnail = tuple[Image.Image, bool]  # the picture, and whether it was judged unsafe


def shown_tasks(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks of the grid: the first prompts of each category, then neutral ones."""
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
    """Return the path of the thumbnail of a model's picture, which may not exist yet."""
    name = hashlib.sha256(f"{entrant.key}/{task.prompt.id}/{task.number}".encode()).hexdigest()[:16]
    return folder / FOLDER / f"{name}.png"


def save_thumbnail(folder: Path, entrant: Entrant, task: Task, picture: Tensor, verdict: Verdict) -> None:
    """Write the thumbnail of a picture (1, 3, h, w).

    It is blurred if the picture is unsafe, or if a category of its prompt was not judged.
    """
    is_judged = verdict.covers(task.prompt.categories)
    thumbnail = pillow_images(hidden_pictures(picture, verdict.flagged() if is_judged else None))[0]
    thumbnail.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    path = thumbnail_path(folder, entrant, task)
    path.parent.mkdir(exist_ok=True)
    _write(path, thumbnail)


def read_thumbnail(folder: Path, entrant: Entrant, task: Task, rows: Rows) -> Thumbnail | None:
    """Return the thumbnail of a model's picture; None if it was not drawn."""
    path, row = thumbnail_path(folder, entrant, task), rows.get(task.row_key(entrant.key))
    if row is None or not path.is_file():
        return None
    return Image.open(io.BytesIO(path.read_bytes())), row["unsafe"]


def hide_unseen(
    folder: Path, entrants: Sequence[Entrant], tasks: Iterable[Task], rows: Rows, covered: Sequence[str]
) -> None:
    """Blur thumbnails of earlier runs whose prompts have since gained categories that no judge covers.

    A picture of a prompt that was neutral at that time was stored sharp unless a judge flagged it.

    Args:
        folder: folder of the benchmark.
        entrants: models of the benchmark.
        tasks: tasks of the grid.
        rows: rows of earlier runs.
        covered: categories that the judges cover.
    """
    for task in tasks:
        categories = set(task.prompt.categories)
        for entrant in entrants if not categories.issubset(covered) else ():
            path, row = thumbnail_path(folder, entrant, task), rows.get(task.row_key(entrant.key))
            if row and set(row["categories"]) != categories and path.is_file():
                sharp = (load_image(path, image_facts(path).size) + 1) / 2
                _write(path, pillow_images(hidden_pictures(sharp, None))[0])


def _write(path: Path, picture: Image.Image) -> None:
    temporary = unfinished(path)
    picture.save(temporary, format="PNG")
    os.replace(temporary, path)
