"""Give the pairs of a folder the scores of a judge, once, so that training can weigh them without one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..evaluation import Panel
from ..pairs.folder import PAIRS_FILE
from ..pairs.rows import RowDroppedError, read_categories, read_text
from ..system.paths import contained_path
from ..system.pictures import read_rgb
from ..system.work_folder import write_whole
from .journal import Line, manifest_lock, read_lines, write_lines

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluation import Panel, Verdict


def is_unsafe(loser: Verdict, categories: Sequence[str]) -> bool | None:
    """Return whether a loser is flagged in one of its categories.

    None: not measured, for none is flagged and the judges do not see all of them.
    """
    flags = loser.flagged(categories)
    if flags is not None and bool(flags[0]):
        return True
    return False if loser.covers(categories) else None


def is_safe(winner: Verdict) -> bool:
    """Return whether a winner is flagged in no category that judges see."""
    return not bool(winner.flagged()[0])


def pair_scores(
    panel: Panel, loser: Verdict, winner: Verdict, categories: Sequence[str]
) -> dict[str, Any] | None:
    """Return the field `scores` of a row; None where the loser is not measured, see `is_unsafe`.

    The scores are over the pair's own categories; whether they count as unsafe is said beside them, for
    only the judges know their thresholds.
    """
    unsafe = is_unsafe(loser, categories)
    if unsafe is None:
        return None
    return {
        "unsafe_image": rounded(loser.score(categories)),
        "safe_image": rounded(winner.score(categories)),
        "loser_is_unsafe": unsafe,
        "winner_is_safe": is_safe(winner),
        "judge": panel.label(),
    }


def rounded(scores: Tensor | None) -> float | None:
    """Return the score of the only picture, as it is written; None where it is not measured."""
    return None if scores is None else round(scores.item(), 6)


_PROMPTS, _IMAGES = ("unsafe_prompt", "safe_prompt"), ("unsafe_image", "safe_image")
UNWEIGHED_FILE = "pairs_unweighed{}.jsonl"


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
            f"{self.unmeasured} not measured by the judge, {self.unreadable} that cannot be read or used."
        )


def weigh_pairs(
    folder: Path, panel: Panel, *, on_progress: Callable[[int, int], None] | None = None
) -> WeighingReport:
    """Write the field `scores` of every row of `pairs.jsonl`, in the row's own categories.

    The manifest is replaced whole at the end; as it was, it stays beside as `pairs_unweighed.jsonl`, of a
    further weighing as `pairs_unweighed_2.jsonl` and so on. Lines that are no row, rows that no loader takes,
    whose pictures cannot be read or whose categories the judge does not see, and what others wrote meanwhile
    stay.

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
    lines = read_lines(manifest)
    counts = dict.fromkeys(WeighingReport._fields, 0)
    weighed: dict[bytes, Line] = {}
    for number, line in enumerate(lines):
        if on_progress:
            on_progress(number, len(lines))
        if scores := _scores(folder.resolve(), line.fields, panel, counts):
            row = {**line.fields, "scores": scores}
            weighed[line.content] = line._replace(content=json.dumps(row).encode(), fields=row)
    with manifest_lock(folder):
        found = read_lines(manifest)  # again: it may have changed meanwhile
        after = [weighed.get(line.content, line) for line in found]
        if after != found:
            _keep(manifest)
            write_lines(manifest, after)
    if on_progress:
        on_progress(len(lines), len(lines))
    return WeighingReport(**counts)


def _keep(manifest: Path) -> None:
    """Copy the manifest to a name of its own, unless such a copy is there."""
    for number in count(1):
        copy = manifest.with_name(UNWEIGHED_FILE.format(f"_{number}" if number > 1 else ""))
        if not copy.exists():
            return write_whole(copy, manifest.read_bytes())
        if copy.read_bytes() == manifest.read_bytes():
            return None


def _scores(
    root: Path, row: Mapping[str, Any] | None, panel: Panel, counts: dict[str, int]
) -> dict[str, Any] | None:
    try:
        written = read_text(row, _PROMPTS, _IMAGES)  # what no loader takes is not looked at
        categories = read_categories(row)
        pictures = [_picture(root, written[name]) for name in _IMAGES]
    except (RowDroppedError, ValueError):
        counts["unreadable"] += 1
        return None
    scores = pair_scores(panel, *map(panel.look, pictures), categories)
    if scores is None:
        counts["unmeasured"] += 1
        return None
    counts["scored"] += 1
    counts["mislabelled"] += scores["safe_image"] >= scores["unsafe_image"]
    return scores


def _picture(root: Path, written: str) -> Tensor:
    """Return a picture of the folder, (1, 3, h, w) in [0, 1]."""
    path = contained_path(root, written)
    if path is None:
        raise ValueError(f"{written!r} is no file of {root.name}.")
    pixels = torch.from_numpy(np.array(read_rgb(path)))  # (h, w, 3)
    return pixels.permute(2, 0, 1)[None].float() / 255
