"""What the entrywise methods are made of: a way to thin out an update, and a way to combine what is left.

| method            | thinned out by  | combined by          |
|-------------------|-----------------|----------------------|
| `magnitude_prune` | `keep_largest`  | sum                  |
| `ties`            | `keep_largest`  | `elected_mean`       |
| `dare_linear`     | `keep_random`   | sum                  |
| `dare_ties`       | `keep_random`   | `elected_mean`       |

Choosing single entries destroys low rank, so all of it is dense, one layer at a time.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..experts.low_rank import LowRank
from .layer import MergedLayer


def keep_largest(delta: Tensor, density: float) -> Tensor:
    """Set all but the entries of largest magnitude to zero (TIES, arXiv:2306.01708, section 3, "trim").

    Per layer as in PEFT; the paper trims the whole model at once.

    Args:
        delta: shape (d_out, d_in).
        density: share of the entries to keep, in (0, 1]. Entries equal to the smallest one kept stay too.
    """
    kept = max(1, int(density * delta.numel()))
    if kept >= delta.numel():
        return delta
    size = delta.abs()
    smallest = size.flatten().kthvalue(delta.numel() - kept + 1).values
    return delta.where(size >= smallest, 0.0)


def keep_random(delta: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Keep each entry with probability `density`, divided by it so the mean stays (DARE, arXiv:2311.03099).

    Args:
        delta: shape (d_out, d_in).
        density: share of the entries to keep, in (0, 1].
        generator: on the CPU.
    """
    keep = torch.rand(delta.shape, generator=generator) < density
    return delta.where(keep, 0.0) / density


def elected_mean(deltas: Sequence[Tensor]) -> Tensor:
    """Elect the sign of each entry by the sum, and average the entries that have it (TIES, section 3).

    Strengths are in the updates already, so a stronger expert has more say in the election. PEFT elects
    before it weights; at equal strengths both are the same. A sum of zero elects plus.

    Args:
        deltas: each of shape (d_out, d_in).
    """
    positive = sum(delta.double() for delta in deltas) >= 0  # fp64: the order of the experts must not decide
    total, count = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
    for delta in deltas:
        agrees = torch.where(positive, delta > 0, delta < 0)
        total += delta.where(agrees, 0.0)
        count += agrees
    return total / count.clamp(min=1)


def magnitude_prune(parts: Sequence[LowRank], *, density: float) -> MergedLayer:
    """Return delta = sum_e trim(delta_e), dense.

    Args:
        parts: update of each expert, strength folded.
        density: share of each update's entries that is kept, in (0, 1].
    """
    return MergedLayer(sum(keep_largest(part.delta(), density) for part in parts))


def ties(parts: Sequence[LowRank], *, density: float) -> MergedLayer:
    """Return, entry by entry, the mean of the trimmed updates that have the elected sign, dense.

    Args:
        parts: update of each expert, strength folded.
        density: share of each update's entries that is kept, in (0, 1].
    """
    return MergedLayer(elected_mean([keep_largest(part.delta(), density) for part in parts]))


def dare_linear(
    parts: Sequence[LowRank], *, density: float, generators: Sequence[torch.Generator]
) -> MergedLayer:
    """Return delta = sum_e drop(delta_e) / density, dense.

    Args:
        parts: update of each expert, strength folded.
        density: share of each update's entries that is kept, in (0, 1].
        generators: one per part.
    """
    pairs = zip(parts, generators, strict=True)
    return MergedLayer(sum(keep_random(part.delta(), density, generator) for part, generator in pairs))


def dare_ties(
    parts: Sequence[LowRank], *, density: float, generators: Sequence[torch.Generator]
) -> MergedLayer:
    """Return, entry by entry, the mean of the thinned and rescaled updates that have the elected sign, dense.

    Args:
        parts: update of each expert, strength folded.
        density: share of each update's entries that is kept, in (0, 1].
        generators: one per part.
    """
    pairs = zip(parts, generators, strict=True)
    return MergedLayer(elected_mean([keep_random(part.delta(), density, own) for part, own in pairs]))
