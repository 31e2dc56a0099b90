"""What a training run reads: rows by number, loaded on access, so that they need not fit in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.conditioning import Conditioning
from .entry_store import Entry

NONE = torch.empty(0, dtype=torch.int64)


class _Rows:
    """Entries by number."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = tuple(entries)

    def __len__(self) -> int:
        return len(self.entries)

    def _read(self, rows: Tensor) -> list[Mapping[str, Tensor]]:
        return [self.entries[row].read() for row in rows.tolist()]


class LatentRows(_Rows):
    """Latents by number; rows read in one call must have one size."""

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return latents, (rows, 4, h, w) fp32 on the CPU."""
        return torch.cat([entry["latents"] for entry in self._read(rows)])


class PromptRows(_Rows):
    """Encoded prompts by number."""

    def __getitem__(self, rows: Tensor) -> Conditioning:
        """Return one row per number, fp32 on the CPU."""
        return Conditioning.concatenate([Conditioning(**entry) for entry in self._read(rows)])


@dataclass(frozen=True, eq=False)  # holds tensors, so equality stays identity
class TrainingData:
    """Everything a training run reads; of each table only the rows of a step are in memory.

    Attributes:
        winner: latents of the safe images, times the latent scale of the family, one row per pair; with
            mirrored images, as many rows follow with the latents of the mirrored images.
        loser: likewise of the unsafe images, of the size of their winners.
        neutral: likewise of images that must not change: neutral images, and the safe side of the pairs in
            buckets without neutral images.
        prompts: each different prompt, encoded, one row each.
        unsafe_prompt: row of `prompts` per pair, (pairs,) int64.
        safe_prompt: likewise.
        neutral_prompt: row of `prompts` per neutral row, (rows,) int64.
        empty: the empty prompt, one row.
        buckets: every pair to train on and every neutral row is in one of them.
        pairs_hash: `SafetyPairs.content_hash` of the images and prompts.
        encoding_hash: hash of the encoded images and prompts.
        neutral_pair: index of the pair whose safe image a neutral row is, -1 for a neutral image, (rows,)
            int64; None if all rows are neutral images.
        safety_gap: `PreferencePair.safety_gap`, NaN where not judged, (pairs,); None if none was judged.
        judged_wrong: whether judges found the loser not unsafe or the winner not safe, (pairs,) bool; None
            if no pair is.
        resolution: side in pixels of the square pictures, or of the square whose area the buckets have; 0:
            unknown.
        everyday_prompt: row of `prompts` per everyday prompt that training may keep, (rows,) int64.
        measured_prompt: likewise of those that are only measured.
        sentence_prompt: likewise of the kept ones that are sentences of the pairs, see `with_sentences`.
        cost_gap: `PreferencePair.cost_gap`, NaN where not known, (pairs,); None if none is.
        quality_gap: likewise of `PreferencePair.quality_gap`.
    """

    winner: LatentRows | Tensor
    loser: LatentRows | Tensor
    neutral: LatentRows | Tensor
    prompts: PromptRows | Conditioning
    unsafe_prompt: Tensor
    safe_prompt: Tensor
    neutral_prompt: Tensor
    empty: Conditioning
    buckets: tuple[Bucket, ...]
    pairs_hash: str
    encoding_hash: str
    neutral_pair: Tensor | None = None
    safety_gap: Tensor | None = None
    judged_wrong: Tensor | None = None
    resolution: int = 0
    everyday_prompt: Tensor = NONE
    measured_prompt: Tensor = NONE
    sentence_prompt: Tensor = NONE
    cost_gap: Tensor | None = None
    quality_gap: Tensor | None = None

    @property
    def num_pairs(self) -> int:
        """Number of preference pairs."""
        return len(self.unsafe_prompt)

    @property
    def num_neutral(self) -> int:
        """Number of neutral rows."""
        return len(self.neutral_prompt)

    @property
    def is_mirrored(self) -> bool:
        """Whether each image also has its mirrored version."""
        return len(self.winner) == 2 * self.num_pairs

    def exchanged(self, pairs: Tensor) -> TrainingData:
        """Return the data with winner and loser of some pairs exchanged; the prompts stay.

        Where the safe image of such a pair is kept in place of a neutral image, it is the new winner.

        Args:
            pairs: which pairs, (pairs,) bool.
        """
        versions = 1 + self.is_mirrored
        is_other = pairs.repeat(versions)
        winner, loser = _chosen(self.winner, self.loser, is_other), _chosen(self.loser, self.winner, is_other)
        if self.neutral_pair is None:
            return replace(self, winner=winner, loser=loser)
        of_pair = self.neutral_pair.clamp(min=0)
        is_winner = ((self.neutral_pair >= 0) & pairs[of_pair]).repeat(versions)
        winner_row = torch.cat([of_pair + version * self.num_pairs for version in range(versions)])
        neutral = _chosen(self.neutral, _rows(winner, winner_row), is_winner)
        return replace(self, winner=winner, loser=loser, neutral=neutral)


def _chosen(one: LatentRows | Tensor, other: LatentRows | Tensor, is_other: Tensor) -> LatentRows | Tensor:
    """Return a table with the rows of another where `is_other`, (rows,) bool."""
    if isinstance(one, Tensor):
        return torch.where(is_other[:, None, None, None], other, one)
    rows = zip(one.entries, other.entries, is_other.tolist(), strict=True)
    return LatentRows([there if wanted else here for here, there, wanted in rows])


def _rows(table: LatentRows | Tensor, rows: Tensor) -> LatentRows | Tensor:
    return (
        table[rows]
        if isinstance(table, Tensor)
        else LatentRows([table.entries[row] for row in rows.tolist()])
    )


class Bucket(NamedTuple):
    """Pairs with pictures of one size, so that they can share a batch.

    Attributes:
        latent_shape: (4, h, w).
        pairs: indices of pairs, (pairs,) int64, at least one.
        neutral: what may be kept, at least one, (rows,) int64: numbers of neutral rows of that size, and from
            `num_neutral` on those of everyday prompts, which are put on pictures of the pairs.
    """

    latent_shape: tuple[int, ...]
    pairs: Tensor
    neutral: Tensor
