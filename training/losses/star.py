"""What a pair that is not trusted whole does instead of teaching: it holds the model to the base."""

from torch import Tensor

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
