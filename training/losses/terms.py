"""Terms an objective may declare beside its preference: the trainer computes those that weigh something."""

from torch import Tensor

from .errors import PairErrors

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


STRENGTH = 1.0  # of the distance as a mean per element; our choice


def star_anchor(prediction: Tensor, ref_prediction: Tensor, weights: Tensor) -> Tensor:
    """Keep what distrusted pairs show as it was.

    loss = strength * mean[(1 - a) / 2 * (|eps_w - ref_w|^2 + |eps_l - ref_l|^2)]

    The divergence between two denoising steps of one noise level is proportional to the squared distance of
    their predictions, so this is the half that STAR-DSS (arXiv:2505.17196) gives to untrusted parts, carried
    over to pictures; our own derivation. The norm is the mean over elements.

    Args:
        prediction: output with the adapter: the winners, then the losers, (2 * batch, 4, h, w).
        ref_prediction: output without it, same shape.
        weights: a, how far each pair is trusted, in [0, 1], (batch,).

    Returns:
        Shape (), fp32. 0 when all pairs are trusted or the adapter is zero.
    """
    distance = (prediction.float() - ref_prediction.float()).square().flatten(1).mean(dim=1)  # (2 * batch,)
    return STRENGTH * ((1 - weights) * (distance.view(2, -1).mean(dim=0))).mean()
