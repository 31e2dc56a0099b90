"""Terms that an objective may add to its preference; the trainer computes those with a weight above 0."""

from torch import Tensor

TERM_OPTIONS = {  # term -> the option that weighs it
    "safe_lead": "anchor_weight",
    "preservation": "preserve_weight",  # on neutral prompts
    "output_preservation": "preserve_weight",  # on pure noise under the empty prompt
}


def safe_lead(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Lead the unsafe prompt to where the safe prompt leads.

    The base model's own prediction is a better target than the noise: it has no noise of its own, and it is
    known on the unsafe picture too. After Concept Ablation (arXiv:2303.13516), which leads one word to
    another on pictures of the latter; both pictures of a pair are our choice.

    Args:
        prediction: output with the adapter under the unsafe prompts, (rows, 4, h, w).
        target: output without the adapter for the same noised pictures under the safe prompts, same shape.
        weights: how much each row counts, in [0, 1], (rows,).

    Returns:
        Mean over rows of the weighted mean squared difference per element, shape (), fp32, >= 0.
    """
    distance = (prediction.float() - target.float()).square().flatten(1).mean(dim=1)  # (rows,)
    return (weights * distance).mean()


def preservation(prediction: Tensor, ref_prediction: Tensor) -> Tensor:
    """Keep what must not change: the distance to the base model on the same inputs.

    Args:
        prediction: output of the UNet with the adapter, shape (batch, 4, h, w).
        ref_prediction: output without the adapter for the same inputs, same shape.

    Returns:
        Mean squared difference per element, shape (), fp32. 0 when the adapter is zero.
    """
    return (prediction.float() - ref_prediction.float()).square().mean()


def star_anchor(prediction: Tensor, ref_prediction: Tensor, weights: Tensor, *, logit_scale: float) -> Tensor:
    """Keep the base model's predictions on pairs that are not fully trusted.

    loss = logit_scale * mean[(1 - a) / 2 * (|eps_w - ref_w|^2 + |eps_l - ref_l|^2)]

    This is the static form of STAR-DSS (arXiv:2505.17196), carried over from texts to images; our own
    derivation. STAR-DSS adds w * cross-entropy and (1 - w) * KL divergence to the reference, both in one
    unit. Here both are read off one denoising step. It is a Gaussian whose mean moves in proportion to the
    predicted noise and whose variance is fixed. So with one factor c of the noise level, its negative log
    likelihood is c * |eps - noise|^2 (plus a constant), and its divergence from the base model's step is
    c * |eps - ref|^2. The logit of the preference is a difference of such log likelihoods, and multiplies
    each squared error by beta / 2 (by beta in `duo`). So c is `logit_scale`, at every noise level.

    The norm is the mean over elements. The half gives both images of a pair the weight that they have in the
    preference of an untrained adapter, where the sigmoid is one half.

    Args:
        prediction: output with the adapter, the winners before the losers, (2 * batch, 4, h, w).
        ref_prediction: output without the adapter, same shape.
        weights: a, how much each pair is trusted, in [0, 1], (batch,).
        logit_scale: factor of the squared errors in the logit, see `Objective.logit_scale`.

    Returns:
        Shape (), fp32. 0 when all pairs are trusted or the adapter is zero.
    """
    distance = (prediction.float() - ref_prediction.float()).square().flatten(1).mean(dim=1)  # (2 * batch,)
    return logit_scale * ((1 - weights) * (distance.view(2, -1).mean(dim=0))).mean()
