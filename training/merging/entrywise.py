"""Methods that choose single entries of the updates, composed of a way to sparsify and a way to combine.

| method            | sparsified by   | combined by          |
|-------------------|-----------------|----------------------|
| `magnitude_prune` | `keep_largest`  | sum                  |
| `ties`            | `keep_largest`  | `elected_mean`       |
| `dare_linear`     | `keep_random`   | sum                  |
| `dare_ties`       | `keep_random`   | `elected_mean`       |

Choosing single entries destroys low rank, so the work is dense, one layer at a time. All methods take the
parts of one layer, with strengths folded in, and `density`: the share of each part's entries that is kept,
in (0, 1].
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..experts.low_rank import LowRank
from .layer import MergedLayer


def magnitude_prune(parts: Sequence[LowRank], *, density: float) -> MergedLayer:
    """Return delta = sum_e trim(delta_e), dense."""
    return MergedLayer(sum(keep_largest(part.delta(), density) for part in parts))


def ties(parts: Sequence[LowRank], *, density: float) -> MergedLayer:
    """Return, entry by entry, the mean of the trimmed updates that have the elected sign, dense."""
    return MergedLayer(elected_mean([keep_largest(part.delta(), density) for part in parts]))


def dare_linear(
    parts: Sequence[LowRank], *, density: float, generators: Sequence[torch.Generator]
) -> MergedLayer:
    """Return delta = sum_e drop(delta_e) / density, dense; `generators` holds one per part."""
    return MergedLayer(sum(_dropped(parts, density, generators)))


def dare_ties(
    parts: Sequence[LowRank], *, density: float, generators: Sequence[torch.Generator]
) -> MergedLayer:
    """Return, entry by entry, the mean of the dropped and rescaled updates with the elected sign, dense."""
    return MergedLayer(elected_mean(list(_dropped(parts, density, generators))))


def keep_largest(delta: Tensor, density: float) -> Tensor:
    """Set all but the entries of largest magnitude to zero (TIES, arXiv:2306.01708, section 3, "trim").

    Each layer is trimmed by itself, as in PEFT; the paper trims the whole model at once.

    Args:
        delta: shape (d_out, d_in).
        density: share of the entries to keep, in (0, 1]. Entries as large as the smallest one kept stay too.
    """
    num_kept = max(1, int(density * delta.numel()))
    if num_kept >= delta.numel():
        return delta
    size = delta.abs()
    smallest = size.flatten().kthvalue(delta.numel() - num_kept + 1).values
    return delta.where(size >= smallest, 0.0)


def keep_random(delta: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Keep each entry with probability `density`, and divide by it to keep the mean (DARE, arXiv:2311.03099).

    Args:
        delta: shape (d_out, d_in).
        density: share of the entries to keep, in (0, 1].
        generator: on the CPU.
    """
    keep = torch.rand(delta.shape, generator=generator) < density
    return delta.where(keep, 0.0) / density


def elected_mean(deltas: Sequence[Tensor]) -> Tensor:
    """Elect the sign of each entry by the sum, and average the entries that have it (TIES, section 3).

    Strengths are folded into the updates, so a stronger expert has more say in the election. PEFT elects
    before it applies weights; at equal strengths both give the same result. A sum of zero elects plus.

    Args:
        deltas: shape (d_out, d_in) each.
    """
    # fp64: the order of the experts must not decide
    is_positive = sum(delta.double() for delta in deltas) >= 0
    total, count = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
    for delta in deltas:
        agrees = torch.where(is_positive, delta > 0, delta < 0)
        total += delta.where(agrees, 0.0)
        count += agrees
    return total / count.clamp(min=1)


def _dropped(
    parts: Sequence[LowRank], density: float, generators: Sequence[torch.Generator]
) -> Iterator[Tensor]:
    for part, generator in zip(parts, generators, strict=True):
        yield keep_random(part.delta(), density, generator)
