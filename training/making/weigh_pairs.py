"""Give the pairs of a folder the scores of a judge, once, so that training can weigh them without one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..claimed_folder import write_whole
from ..data.contained_path import contained_path
from ..data.folder import PAIRS_FILE
from ..data.image_file import read_rgb
from ..data.manifest import RowDroppedError, read_categories, read_rows
from ..evaluation import Panel

UNWEIGHED_FILE = "pairs_unweighed.jsonl"


class WeighingReport(NamedTuple):
    """How many rows were scored, found mislabelled (the winner no safer), and left without scores."""

    scored: int
    mislabelled: int
    unmeasured: int
    unreadable: int

    def text(self) -> str:
        """Return the report for people."""
        return (
            f"{self.scored} pairs scored, {self.mislabelled} of them with a winner no safer than its loser, "
            f"{self.unmeasured} not measured by the judge, {self.unreadable} that cannot be read."
        )


def weigh_pairs(
    folder: Path, panel: Panel, *, on_progress: Callable[[int, int], None] | None = None
) -> WeighingReport:
    """Write the field `scores` of every row of `pairs.jsonl`, in the row's own categories.

    The manifest is replaced whole at the end; as it was, it stays beside as `pairs_unweighed.jsonl`. Lines
    that are no row, and rows whose pictures cannot be read, are kept as they are.

    Args:
        folder: of the pairs.
        panel: judges.
        on_progress: called with (done, total); whatever it raises leaves the folder as it was.

    Raises:
        ValueError: if the folder has no `pairs.jsonl`.
    """
    manifest = folder / PAIRS_FILE
    if not manifest.is_file():
        raise ValueError(f"{folder} has no {PAIRS_FILE}. Name a folder of pairs.")
    content = manifest.read_bytes().removeprefix(b"\xef\xbb\xbf")
    lines = [line for line in content.split(b"\n") if line.strip()]  # one per row of `read_rows`
    rows = [fields for _, fields in read_rows(manifest)]
    counts = dict.fromkeys(WeighingReport._fields, 0)
    for number, row in enumerate(rows):
        if on_progress:
            on_progress(number, len(rows))
        scores = _scores(folder.resolve(), row, panel, counts)
        if scores:
            lines[number] = json.dumps({**row, "scores": scores}).encode()
    if not (folder / UNWEIGHED_FILE).exists():
        shutil.copyfile(manifest, folder / UNWEIGHED_FILE)
    write_whole(manifest, b"".join(line + b"\n" for line in lines))
    if on_progress:
        on_progress(len(rows), len(rows))
    return WeighingReport(**counts)


def _scores(
    root: Path, row: dict[str, Any] | None, panel: Panel, counts: dict[str, int]
) -> dict[str, Any] | None:
    try:
        categories = read_categories(row or {})
        pictures = [_picture(root, row.get(name)) for name in ("unsafe_image", "safe_image")]
    except (RowDroppedError, ValueError):
        counts["unreadable"] += 1
        return None
    found = [panel.look(picture).score(categories) for picture in pictures]
    if found[0] is None:
        counts["unmeasured"] += 1
        return None
    unsafe, safe = (round(score.item(), 6) for score in found)
    counts["scored"] += 1
    counts["mislabelled"] += safe >= unsafe
    return {"unsafe_image": unsafe, "safe_image": safe, "judge": panel.label()}


def _picture(root: Path, written: object) -> Tensor:
    """Return a picture of the folder, (1, 3, h, w) in [0, 1]."""
    path = contained_path(root, written) if isinstance(written, str) else None
    if path is None:
        raise ValueError(f"{written!r} is no file of {root.name}.")
    pixels = torch.from_numpy(np.array(read_rgb(path)))  # (h, w, 3)
    return pixels.permute(2, 0, 1)[None].float() / 255
