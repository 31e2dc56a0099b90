"""A low-rank update of one Linear, stored as its two factors; the dense matrix is rarely needed."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_OVERSAMPLING = 10  # Halko et al. 2011, section 4.2: 5 or 10
_POWER_ITERATIONS = 4  # of pure noise, the worst case, this keeps over 0.97 of what the exact SVD keeps


@dataclass(frozen=True, eq=False)  # tensors have no single truth value, so equality stays identity
class LowRank:
    """The update delta = up @ down of one Linear, with alpha / rank already folded into `up`.

    Args:
        up: factor B, shape (d_out, rank), fp32 (fp64 is accepted for checks).
        down: factor A, shape (rank, d_in), same type as `up`.

    Raises:
        ValueError: if the shapes do not form a product or the types are not fp32 or fp64.
    """

    up: Tensor
    down: Tensor

    def __post_init__(self) -> None:
        if self.up.ndim != 2 or self.down.ndim != 2 or self.up.shape[1] != self.down.shape[0]:
            raise ValueError(
                "up must be (d_out, rank) and down (rank, d_in), "
                f"got {tuple(self.up.shape)} and {tuple(self.down.shape)}."
            )
        if 0 in self.up.shape or 0 in self.down.shape:
            raise ValueError(
                f"rank, d_out and d_in must be at least 1, got {self.d_out, self.rank, self.d_in}."
            )
        if self.up.dtype != self.down.dtype or self.up.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"up and down must both be fp32, got {self.up.dtype} and {self.down.dtype}.")

    @property
    def rank(self) -> int:
        """Number of columns of `up`, an upper bound of the delta's rank."""
        return self.up.shape[1]

    @property
    def d_out(self) -> int:
        """Output neurons of the Linear."""
        return self.up.shape[0]

    @property
    def d_in(self) -> int:
        """Input width of the Linear."""
        return self.down.shape[1]

    def delta(self) -> Tensor:
        """Return the dense update, shape (d_out, d_in)."""
        return self.up @ self.down

    def scaled(self, factor: float) -> "LowRank":
        """Return factor * delta, the factor folded into `up`; `down` is shared, not copied."""
        return LowRank(self.up * factor, self.down)

    def norm(self) -> float:
        """Return the Frobenius norm of the delta without forming it.

        ||B A||_F^2 = sum((B^T B) * (A A^T)) of two (rank, rank) matrices, in fp64 because terms may cancel.
        """
        up, down = self.up.double(), self.down.double()
        squared = ((up.T @ up) * (down @ down.T)).sum()
        return float(squared.clamp(min=0).sqrt())

    def inner(self, other: "LowRank") -> float:
        """Return the inner product of two updates of one Linear, sum(delta * other's delta), from factors.

        <B1 A1, B2 A2> = sum((B1^T B2) * (A1 A2^T)), in fp64 as in `norm`.
        """
        up = self.up.double().T @ other.up.double()  # (rank, other's rank)
        down = self.down.double() @ other.down.double().T
        return float((up * down).sum())

    def truncated(self, rank: int) -> tuple["LowRank", float]:
        """Return the best approximation of at most `rank`, by QR of both factors and a small SVD.

        up = Q_u R_u, down^T = Q_d R_d, R_u R_d^T = U S V^T; the result equals the truncated SVD of the
        dense delta (Eckart-Young) in O((d_out + d_in) rank^2). sqrt(S) goes to both sides, so that
        neither overflows when stored in fp16.

        Args:
            rank: at least 1. If it is not below the rank of this update, the update itself is returned.

        Returns:
            The approximation, and the share of the squared norm it keeps, in [0, 1] (1 for a zero delta).

        Raises:
            ValueError: if rank is below 1.
        """
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}.")
        if rank >= self.rank:
            return self, 1.0
        q_up, r_up = torch.linalg.qr(self.up)  # (d_out, k), (k, rank), k = min(d_out, rank)
        q_down, r_down = torch.linalg.qr(self.down.T)
        u, s, vh = torch.linalg.svd(r_up @ r_down.T, full_matrices=False)
        root = s[:rank].sqrt()
        cut = LowRank(q_up @ u[:, :rank] * root, (root[:, None] * vh[:rank]) @ q_down.T)
        return cut, _kept_energy(s, rank)


def added_output(module: nn.Module, inputs: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Return what a low-rank update adds to the output of a layer.

    Args:
        module: the layer, a Linear or a convolution.
        inputs: of the layer, (batch, ..., d_in) or (batch, channels, h, w).
        up: factor B, (d_out, rank), of the inputs' type and on their device.
        down: factor A, (rank, d_in), likewise; d_in is channels * kernel of a convolution.
    """
    if not isinstance(module, nn.Conv2d):
        return F.linear(F.linear(inputs, down), up)
    kernel = down.view(len(down), -1, *module.kernel_size)
    hidden = F.conv2d(inputs, kernel, None, module.stride, module.padding, module.dilation)
    return F.conv2d(hidden, up[:, :, None, None])


def concatenate(parts: Sequence[LowRank]) -> LowRank:
    """Return the exact sum of updates of one Linear; the ranks add up.

    Args:
        parts: at least one update, all with the same d_out and d_in.

    Raises:
        ValueError: if there is no part or the shapes differ.
    """
    if not parts:
        raise ValueError("concatenate needs at least one update, got none.")
    shapes = {(part.d_out, part.d_in) for part in parts}
    if len(shapes) > 1:
        raise ValueError(f"updates of one layer must share (d_out, d_in), got {sorted(shapes)}.")
    return LowRank(torch.cat([part.up for part in parts], dim=1), torch.cat([part.down for part in parts]))


def approximate(dense: Tensor, rank: int) -> tuple[LowRank, float]:
    """Return the best approximation of a dense update at a rank, sqrt(S) on both sides as in `truncated`.

    By an exact SVD if the matrix is small. If the rank is far below the size, by a randomised SVD (Halko et
    al. 2011, arXiv:0909.4061, algorithm 4.4) with a fixed generator: the same matrix gives the same factors.

    Args:
        dense: shape (d_out, d_in), fp32 or fp64.
        rank: at least 1; at most min(d_out, d_in) is used.

    Returns:
        The approximation, and the share of the squared norm it keeps, in [0, 1] (1 for a zero update).

    Raises:
        ValueError: if rank is below 1.
    """
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}.")
    width, size = rank + _OVERSAMPLING, min(dense.shape)
    basis = _range(dense, width) if width < size / 4 else None
    u, s, vh = torch.linalg.svd(dense if basis is None else basis.T @ dense, full_matrices=False)
    u, root = u if basis is None else basis @ u, s[:rank].sqrt()
    cut = LowRank(u[:, :rank] * root, root[:, None] * vh[:rank])
    total = float(dense.double().square().sum())
    kept = float(s[:rank].double().square().sum()) / total if total > 0 and rank < size else 1.0
    return cut, min(1.0, kept)


def _range(dense: Tensor, width: int) -> Tensor:
    """Return an orthonormal basis that nearly spans the leading directions, (d_out, width)."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(dense.shape[1], width, generator=generator).to(dense)
    for _ in range(_POWER_ITERATIONS):
        basis = torch.linalg.qr(dense.T @ torch.linalg.qr(dense @ basis)[0])[0]
    return torch.linalg.qr(dense @ basis)[0]


def _kept_energy(singular_values: Tensor, rank: int) -> float:
    squared = singular_values.double().square()
    total = float(squared.sum())
    return min(1.0, float(squared[:rank].sum()) / total) if total > 0 else 1.0
