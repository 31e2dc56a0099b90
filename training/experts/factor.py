"""Factor the change of one layer into its leading components, without those that may be rounding noise."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..config import ExtractConfig
from .low_rank import LowRank

OVERSAMPLING = 8  # directions beyond the rank, which make the last components accurate
POWER_ITERATIONS = 4  # each squares the spectrum; enough for one that hardly falls
EXACT_BELOW = 256  # up to this smaller side an exact SVD costs nothing
_EDGE_MARGIN = 1.05  # a random matrix of a layer's size exceeds the edge of its spectrum by less
_MAX_ROUNDS = 8
_CHUNK = 1 << 20  # elements per step, which keeps fp64 copies small


class Factored(NamedTuple):
    """The change of one layer as a low-rank update.

    Attributes:
        update: None if no component exceeds the rounding noise.
        total: squared Frobenius norm of the change.
        kept: the part of `total` that the update holds.
        rounding: the part of the remainder that rounding of the stored weights explains.
    """

    update: LowRank | None
    total: float
    kept: float
    rounding: float


def factor(
    change: Tensor,
    rounding_variance: float,
    config: ExtractConfig,
    generator: torch.Generator,
    *,
    least_variance: float = 0.0,
) -> Factored:
    """Approximate a change by its largest singular components, as far as they exceed the rounding noise.

    Args:
        change: (d_out, d_in), fp32, not all zero.
        rounding_variance: variance per element that rounding put into the change.
        config: rank and energy.
        generator: draws the directions of the search, for a large matrix.
        least_variance: see `arithmetic_variance`.
    """
    total = squared_norm(change)
    u, s, vh = leading_components(change, config.rank, generator)
    squared = s.double().square()
    rest = squared_norm(torch.addmm(change, u * s, vh, alpha=-1))  # total - sum(squared) would cancel
    computed = (torch.finfo(torch.float32).eps * float(s[0])) ** 2  # the decomposition is rounded itself
    bounds = max(least_variance, computed), rounding_variance
    above, variance = _above_rounding(squared, rest, change.shape, bounds)
    count = min(_num_for_energy(squared, config.energy * total), above)
    kept = min(total, float(squared[:count].sum()))
    rounding = min(variance * change.numel(), total - kept)
    if not count:
        return Factored(None, total, 0.0, rounding)
    root = s[:count].sqrt()
    update = LowRank((u[:, :count] * root).contiguous(), (root[:, None] * vh[:count]).contiguous())
    return Factored(update, total, kept, rounding)


def leading_components(
    matrix: Tensor, rank: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest singular values and their vectors: exact for a small matrix, else by a search.

    The search multiplies random directions by the matrix and its transpose, orthonormalises them after each
    step, and decomposes the matrix in their span (Halko, Martinsson and Tropp 2011, arXiv:0909.4061,
    algorithms 4.4 and 5.1).

    Args:
        matrix: (d_out, d_in), fp32.
        rank: number of components; at most min(d_out, d_in) are returned.
        generator: draws the directions.

    Returns:
        u (d_out, k), s (k,) descending, vh (k, d_in); k = min(rank, d_out, d_in).
    """
    k = min(rank, *matrix.shape)
    if min(matrix.shape) <= max(EXACT_BELOW, 2 * (k + OVERSAMPLING)):
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        return u[:, :k], s[:k], vh[:k]
    directions = torch.randn(matrix.shape[1], k + OVERSAMPLING, generator=generator).to(matrix)
    basis = torch.linalg.qr(matrix @ directions).Q  # (d_out, k + OVERSAMPLING)
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(matrix.T @ basis).Q  # (d_in, k + OVERSAMPLING)
        basis = torch.linalg.qr(matrix @ basis).Q
    u, s, vh = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return basis @ u[:, :k], s[:k], vh[:k]


def squared_norm(tensor: Tensor) -> float:
    """Return the sum of squares, in fp64."""
    return sum(float(part.double().square().sum()) for part in tensor.flatten().split(_CHUNK))


def rounding_variance(base: Tensor, tuned: Tensor, change: Tensor) -> float:
    """Return the variance per element that rounding to the stored types puts into a change.

    The error of a value is uniform within half the spacing of its type at that value, so its variance is
    spacing^2 / 12. The coarser of both files counts, and only for elements that differ: a change that
    rounding hid completely is not in the difference.

    Args:
        base: as stored, any shape.
        tuned: as stored, same shape.
        change: tuned - base, fp32.
    """
    parts = zip(*(tensor.flatten().split(_CHUNK) for tensor in (base, tuned, change)), strict=True)
    spacings = (torch.maximum(_spacing(old), _spacing(new)) * (diff != 0) for old, new, diff in parts)
    return sum(map(squared_norm, spacings)) / 12 / change.numel()


def arithmetic_variance(tuned: Tensor) -> float:
    """Return the variance per element that adding a change to weights in fp32 leaves, at most.

    A model that is stored in fp32 was rounded to fp32 by whoever added the change to it, and by more where
    the weight is larger. Components below this are that rounding, and no part of the change.

    Args:
        tuned: as stored, any shape.
    """
    return torch.finfo(torch.float32).eps ** 2 * squared_norm(tuned) / tuned.numel()


def _spacing(values: Tensor) -> Tensor:
    """Return the distance to the next number of the same type, fp32."""
    info = torch.finfo(values.dtype)
    exponent = torch.frexp(values.float()).exponent  # |value| in [2^(exponent - 1), 2^exponent)
    return (torch.exp2((exponent - 1).float()) * info.eps).clamp(min=info.smallest_normal * info.eps)


def _above_rounding(
    squared: Tensor, rest: float, shape: tuple[int, int], bounds: tuple[float, float]
) -> tuple[int, float]:
    """Return the number of components above the rounding noise, and the variance of that noise.

    Independent noise of variance v has singular values up to sqrt(v) * (sqrt(d_out) + sqrt(d_in))
    (Marchenko and Pastur 1967), so smaller components cannot be distinguished from it. v is at most the
    variance of what the components leave, because a change that was never rounded has no noise. What they
    leave depends on v in turn, so both are iterated.

    Args:
        squared: squared singular values, descending, fp64.
        rest: squared norm beyond them.
        shape: (d_out, d_in).
        bounds: least and largest variance that rounding may have put into an element.
    """
    count, variance = -1, max(bounds)
    for _ in range(_MAX_ROUNDS):
        edge = _EDGE_MARGIN**2 * variance * (math.sqrt(shape[0]) + math.sqrt(shape[1])) ** 2
        before, count = count, int((squared > edge).sum())
        elements = (shape[0] - count) * (shape[1] - count)
        if count == before or not elements:
            break
        variance = max(bounds[0], min(variance, (rest + float(squared[count:].sum())) / elements))
    return count, variance


def _num_for_energy(squared: Tensor, wanted: float) -> int:
    """Return how many components reach a sum of squares; all of them if they do not reach it."""
    short = int((squared.cumsum(0) < wanted * (1 - 1e-9)).sum())
    return min(len(squared), short + 1)
