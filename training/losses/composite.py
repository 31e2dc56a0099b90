"""The composite objective: which picture wins is decided by quality and cost, and hard pairs count more.

    loss = weight * -(q * log sigmoid(u) + (1 - q) * log sigmoid(-u)),  u = beta / 2 * margin
    weight = |q - sigmoid(u)|^focus, without a gradient

After the idea of SC-DPO (Ruan et al. 2025, arXiv:2504.14290). Its abstract names a safety cost model, joined
to human preference, and a dynamic focusing mechanism for hard pairs; no formula, constant or code was
available to us, so all of this is our reading. q is the probability that the winner is better. With the pair
weighting `relabel` it is 1 and the winner is the picture with the larger reward; with `soft` it is the
sigmoid of the reward gap, see `trainer.pair_weighting`. The focus is that of the focal loss (Lin et al. 2017,
arXiv:1708.02002). Weights are not rescaled: an untrained expert has the weight 0.5^focus on every pair whose
q is 1, so a run with a focus learns more slowly at first.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .alignguard import alignguard_loss
from .errors import PairErrors


def composite_loss(
    errors: PairErrors, *, beta: float, focus: float = 0.0, labels: Tensor | None = None
) -> Tensor:
    """Prefer the better picture, by soft labels where there are some, and more strongly where it loses.

    Args:
        errors: mean squared error per element of the predicted noise (or v), four tensors of shape (batch,).
        beta: strength of the pull towards the base model, in AlignGuard's convention, > 0.
        focus: exponent of the weight, >= 0; 0 treats all pairs alike.
        labels: q, (batch,), in [0, 1]; None: all 1.

    Returns:
        Loss per pair, shape (batch,), fp32. Without labels and with focus 0 it is `alignguard_loss`.

    Raises:
        ValueError: if beta is not positive, or focus is negative.
    """
    if focus < 0:
        raise ValueError(f"focus must be at least 0, got {focus}.")
    wins = alignguard_loss(errors, beta=beta)  # -log sigmoid(u)
    logits = (beta / 2 * errors.margin.float()).detach()
    target = 1.0 if labels is None else labels
    if labels is not None:
        swapped = PairErrors(errors.loser, errors.winner, errors.ref_loser, errors.ref_winner)
        wins = labels * wins + (1 - labels) * alignguard_loss(swapped, beta=beta)  # -log sigmoid(-u)
    return wins if focus == 0 else (target - F.sigmoid(logits)).abs() ** focus * wins
