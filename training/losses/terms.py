"""Terms that an objective may add to its preference; the trainer computes those with a weight above 0."""

from torch import Tensor

from .errors import PairErrors

TERM_OPTIONS = {  # term -> the option that weighs it
    "winner_anchor": "anchor_weight",
    "preservation": "preserve_weight",  # on neutral prompts
    "output_preservation": "preserve_weight",  # on pure noise under the empty prompt
}
STRENGTH = 1.0  # of `star_anchor`, whose distance is a mean per element; our choice


def winner_anchor(errors: PairErrors) -> Tensor:
    """Lead the unsafe prompt to the safe image: the denoising error of the winner.

    Args:
        errors: mean squared error per element, four tensors of shape (batch,); of pairs under their
            unsafe prompt, or under the empty prompt where the caption was dropped. So the anchor also leads
            images without a prompt to the safe side.

    Returns:
        Mean of e_w, shape (), fp32, >= 0.
    """
    return errors.winner.float().mean()


def preservation(prediction: Tensor, ref_prediction: Tensor) -> Tensor:
    """Keep what must not change: the distance to the base model on the same inputs.

    Args:
        prediction: output of the UNet with the adapter, shape (batch, 4, h, w).
        ref_prediction: output without the adapter for the same inputs, same shape.

    Returns:
        Mean squared difference per element, shape (), fp32. 0 when the adapter is zero.
    """
    return (prediction.float() - ref_prediction.float()).square().mean()


def star_anchor(prediction: Tensor, ref_prediction: Tensor, weights: Tensor) -> Tensor:
    """Keep the base model's predictions on pairs that are not fully trusted.

    loss = strength * mean[(1 - a) / 2 * (|eps_w - ref_w|^2 + |eps_l - ref_l|^2)]

    The divergence between two denoising steps of one noise level is proportional to the squared distance of
    their predictions. So this is the term that STAR-DSS (arXiv:2505.17196) applies to untrusted parts of a
    text, carried over to images; our own derivation. The norm is the mean over elements.

    Args:
        prediction: output with the adapter, the winners before the losers, (2 * batch, 4, h, w).
        ref_prediction: output without the adapter, same shape.
        weights: a, how much each pair is trusted, in [0, 1], (batch,).

    Returns:
        Shape (), fp32. 0 when all pairs are trusted or the adapter is zero.
    """
    distance = (prediction.float() - ref_prediction.float()).square().flatten(1).mean(dim=1)  # (2 * batch,)
    return STRENGTH * ((1 - weights) * (distance.view(2, -1).mean(dim=0))).mean()
