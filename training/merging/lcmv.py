"""LCMV: each expert answers on its own inputs as before, and as quietly as possible on all others.

Linearly constrained minimum variance, of array processing (Frost 1972, Proc. IEEE 60(8)), applied to a merge;
our choice. Where `regmean` halves two experts whose inputs look alike, this one adds them up.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..low_rank import LowRank, concatenate
from .layer import MergedLayer
from .response_collector import LayerResponses


def lcmv(parts: Sequence[LowRank], *, statistics: LayerResponses) -> MergedLayer:
    """Return sum_e B_e D_e, where D_e is the quietest factor that keeps what A_e says of its own inputs.

    min_D tr(D M D^T)  subject to  D G_e A_e^T = A_e G_e A_e^T  (see `LayerResponses`)
    D_e = (A_e G_e A_e^T) (A_e G_e M^-1 G_e A_e^T)^-1 A_e G_e M^-1

    Exact at the sum of the ranks. A_e itself satisfies the constraint, so this is never louder than the sum.

    Args:
        parts: update of each expert, strength folded into `up`.
        statistics: of the same experts in this layer; strengths do not enter.
    """
    merged = []
    for part, fitted, own, left in zip(parts, *statistics, strict=True):
        down = _gain(own, left) @ fitted.double()
        merged.append(LowRank(part.up, down.to(part.down)))
    return MergedLayer(concatenate(merged))


def _gain(own: Tensor, left: Tensor) -> Tensor:
    """Return own left^-1, (rank, rank), fp64; components that are zero stay so."""
    size = left.diagonal().double().clamp(min=0).sqrt()
    inverse = torch.where(size > 0, 1 / size, 0.0)  # a component without response needs none
    alike = inverse[:, None] * (left + left.T).double() / 2 * inverse  # of unit diagonal: no scale is small
    return own.double() @ (inverse[:, None] * torch.linalg.pinv(alike, rtol=1e-6, hermitian=True) * inverse)
