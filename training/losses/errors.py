"""The denoising errors of preference pairs, which every loss is a function of."""

from typing import NamedTuple

from torch import Tensor


class PairErrors(NamedTuple):
    """Mean squared error per element of the predicted target, four tensors of shape (batch,), fp32."""

    winner: Tensor  # policy (adapter on), safe image
    loser: Tensor  # policy, unsafe image
    ref_winner: Tensor  # reference (adapter off), safe image
    ref_loser: Tensor  # reference, unsafe image

    @property
    def margin(self) -> Tensor:
        """How much more the winner's error fell from the reference than the loser's, shape (batch,)."""
        return (self.ref_winner - self.winner) - (self.ref_loser - self.loser)


def pair_errors(errors: Tensor, ref_errors: Tensor) -> PairErrors:
    """Split errors stacked as [winners; losers] into the four a loss needs.

    Args:
        errors: mean squared errors with the adapter on, shape (2 * batch,).
        ref_errors: those with the adapter off, same shape.

    Returns:
        Four tensors of shape (batch,), fp32.

    Raises:
        ValueError: if the shapes differ or the number of images is odd.
    """
    if errors.shape != ref_errors.shape or len(errors) % 2:
        raise ValueError(
            "winners and losers must be equal in number, and policy and reference must have the same rows, "
            f"got {len(errors)} and {len(ref_errors)} errors."
        )
    return PairErrors(*errors.chunk(2), *ref_errors.chunk(2))
