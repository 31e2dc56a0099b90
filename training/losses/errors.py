"""training/losses/errors.py."""

from typing import NamedTuple

from torch import Tensor


class PairErrors(NamedTuple):
    """Mean squared error per element of the predicted target, four tensors of shape (batch,), fp32."""

    winner: Tensor  # policy (adapter on), safe image
    loser: Tensor  # policy, unsafe image
    ref_winner: Tensor  # reference (adapter off), safe image
    ref_loser: Tensor  # reference, unsafe image


def pair_errors(errors: Tensor, ref_errors: Tensor) -> PairErrors:
    """Split errors stacked as [winners; losers] into the four a loss needs.

    Args:
        errors: see `squared_error`, with the adapter on, shape (2 * batch,).
        ref_errors: likewise with the adapter off.

    Returns:
        Four tensors of shape (batch,), fp32.

    Raises:
        ValueError: if the shapes differ or the number of images is odd.
    """
    if errors.shape != ref_errors.shape or len(errors) % 2:
        raise ValueError(
            "winners and losers must be stacked in equal number, and alike for the reference, got "
            f"{len(errors)} and {len(ref_errors)} errors."
        )
    return PairErrors(*errors.chunk(2), *ref_errors.chunk(2))
