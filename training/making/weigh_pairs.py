"""Score pairs with judges: the field `scores` of a row, for one pair or for a whole folder.

A folder is scored once, so that training can weigh its pairs without a judge.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from ..pairs.folder import PAIRS_FILE
from ..pairs.rows import RowDroppedError, read_categories, read_text
from ..system.paths import FolderFiles
from ..system.pictures import picture_tensor
from ..system.work_folder import write_whole
from .manifest import Line, manifest_lock, read_lines, write_lines

if TYPE_CHECKING:
    from ..evaluation import Panel, Verdict

UNWEIGHED_FILE = "pairs_unweighed{}.jsonl"
_OF_REWARD = ("cost_", "quality_")
_PROMPTS, _IMAGES = ("unsafe_prompt", "safe_prompt"), ("unsafe_image", "safe_image")


def is_unsafe(loser: Verdict, categories: Sequence[str]) -> bool | None:
    """Return whether a loser is flagged in one of its categories.

    None means not measured: it is not flagged, and the judges do not cover all of its categories.
    """
    flags = loser.flagged(categories)
    if flags is not None and bool(flags[0]):
        return True
    return False if loser.covers(categories) else None


def is_safe(winner: Verdict) -> bool:
    """Return whether a winner is flagged in none of the categories that the judges cover."""
    return not bool(winner.flagged()[0])


def pair_scores(
    panel: Panel, loser: Verdict, winner: Verdict, categories: Sequence[str]
) -> dict[str, Any] | None:
    """Return the field `scores` of a row; None if the loser is not measured, see `is_unsafe`.

    The scores cover the pair's categories. Whether they count as unsafe is recorded beside them, because only
    the judges know their thresholds.
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
    """Return the score of a single picture as it is written to files; None if it is not measured."""
    return None if scores is None else round(scores.item(), 6)


class Rewards(NamedTuple):
    """What the composite reward of a pair is made of, see `trainer.pair_weighting`.

    Attributes:
        cost: picture (1, 3, h, w) in [0, 1] -> its cost; None: not measured.
        quality: picture and its prompt -> its quality; None: not measured, a person's own stays.
    """

    cost: Callable[[Tensor], float] | None = None
    quality: Callable[[Tensor, str], float] | None = None

    def scores(self, pictures: Sequence[Tensor], prompts: Sequence[str]) -> dict[str, float]:
        """Return the entries of `scores`; pictures and prompts of the unsafe side come first."""
        found: dict[str, float] = {}
        for side, picture, prompt in zip(("unsafe", "safe"), pictures, prompts, strict=True):
            if self.cost:
                found[f"cost_{side}"] = round(self.cost(picture), 6)
            if self.quality:
                found[f"quality_{side}"] = round(self.quality(picture, prompt), 6)
        return found


class WeighingReport(NamedTuple):
    """Numbers of rows: scored, of these mislabelled (the winner is no safer), not measured, unreadable."""

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
    folder: Path,
    panel: Panel | None,
    *,
    rewards: Rewards | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> WeighingReport:
    """Write the field `scores` of every row of `pairs.jsonl`, over the row's categories.

    The manifest is replaced as a whole at the end. Its previous version is kept as `pairs_unweighed.jsonl`,
    then `pairs_unweighed_2.jsonl` and so on. A line stays as it is if no loader accepts it, its pictures
    cannot be read, the judge does not cover its categories, or it changed meanwhile.

    Args:
        folder: folder of the pairs.
        panel: judges; None: their scores stay as they are.
        rewards: what else to measure; None: nothing.
        on_progress: called with (done, total); an exception it raises leaves the folder unchanged.

    Raises:
        ValueError: if the folder has no `pairs.jsonl`.
    """
    manifest = folder / PAIRS_FILE
    if not manifest.is_file():
        raise ValueError(f"{folder} has no {PAIRS_FILE}. Choose a folder of pairs.")
    lines = read_lines(manifest)
    counts, files = dict.fromkeys(WeighingReport._fields, 0), FolderFiles(folder.resolve())
    weighed: dict[bytes, Line] = {}
    for number, line in enumerate(lines):
        if on_progress:
            on_progress(number, len(lines))
        if scores := _measure(files, line.fields, panel, rewards or Rewards(), counts):
            row = {**line.fields, "scores": _kept(line.fields, panel) | scores}
            weighed[line.content] = line._replace(content=json.dumps(row).encode(), fields=row)
    with manifest_lock(folder):
        current = read_lines(manifest)  # read again, because it may have changed meanwhile
        updated = [weighed.get(line.content, line) for line in current]
        if updated != current:
            _back_up(manifest)
            write_lines(manifest, updated)
    if on_progress:
        on_progress(len(lines), len(lines))
    return WeighingReport(**counts)


def _back_up(manifest: Path) -> None:
    """Copy the manifest to a new name, unless a copy with the same content exists."""
    for number in count(1):
        copy = manifest.with_name(UNWEIGHED_FILE.format(f"_{number}" if number > 1 else ""))
        if not copy.exists():
            return write_whole(copy, manifest.read_bytes())
        if copy.read_bytes() == manifest.read_bytes():
            return None


def _kept(row: Mapping[str, Any], panel: Panel | None) -> dict[str, Any]:
    """Return the earlier scores that a new weighing keeps: all but those of judges, if there are new ones."""
    earlier = row.get("scores")
    if not isinstance(earlier, Mapping):
        return {}
    return {name: value for name, value in earlier.items() if panel is None or name.startswith(_OF_REWARD)}


def _measure(
    files: FolderFiles,
    row: Mapping[str, Any] | None,
    panel: Panel | None,
    rewards: Rewards,
    counts: dict[str, int],
) -> dict[str, Any] | None:
    """Return the scores of a row, or None, and count the outcome."""
    try:
        text = read_text(row, _PROMPTS, _IMAGES)  # a row that no loader accepts is not judged
        categories = read_categories(row)
        pictures = [picture_tensor(files.find(text[name]).path) for name in _IMAGES]
    except (RowDroppedError, ValueError, FileNotFoundError):
        counts["unreadable"] += 1
        return None
    scores = rewards.scores(pictures, [text[name] for name in _PROMPTS])
    judged = pair_scores(panel, *map(panel.look, pictures), categories) if panel else {}
    if judged is None:
        counts["unmeasured"] += 1
        return scores or None
    counts["scored"] += 1
    names = ("safe_image", "unsafe_image") if judged else ("cost_safe", "cost_unsafe")
    safe, unsafe = (({**judged, **scores}).get(name) for name in names)
    counts["mislabelled"] += safe is not None and safe >= unsafe
    return {**judged, **scores}
