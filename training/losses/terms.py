"""Terms an objective may declare beside its preference: the trainer computes those that weigh something."""

from torch import Tensor

from ..preference import PairErrors

TERM_OPTIONS = {  # term -> the option that weighs it
    "winner_anchor": "anchor_weight",
    "preservation": "preserve_weight",  # on neutral prompts
    "output_preservation": "preserve_weight",  # on pure noise under the empty prompt
}


def winner_anchor(errors: PairErrors) -> Tensor:
    """Lead the unsafe prompt to the safe image: the winner's own denoising error.

    Args:
        errors: mean squared error per element, four tensors of shape (batch,); pairs under their
            unsafe prompt, or under the empty one where the caption was dropped: so the anchor also
            leads the unguided image to the safe side.

    Returns:
        Mean of e_w, shape (), fp32, >= 0.
    """
    return errors.winner.float().mean()


def preservation(prediction: Tensor, ref_prediction: Tensor) -> Tensor:
    """Keep what must not change: the distance to the base model where both see the same.

    Args:
        prediction: output of the UNet with the adapter, shape (batch, 4, h, w).
        ref_prediction: output without it for the same inputs, same shape.

    Returns:
        Mean squared difference per element, shape (), fp32. 0 when the adapter is zero.
    """
    return (prediction.float() - ref_prediction.float()).square().mean()
