"""The loss of a batch, the parts that it is the sum of, and the figures that are watched while training."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..config import TrainConfig
from ..losses import LOSSES
from ..losses.errors import PairErrors, pair_errors
from ..losses.terms import preservation, safe_lead, star_anchor
from ..models.noise import squared_error
from .bank import ReferenceErrors
from .batch import Batch


class Reference(NamedTuple):
    """What the base model, with the adapter off, predicts on a batch.

    Attributes:
        errors: of the pairs.
        kept: prediction for the rows to keep, (kept, 4, h, w) fp32.
        pairs: prediction for winners and losers, (2 * num_rows, 4, h, w) fp32; None where the bank is used.
        lead: where the unsafe prompts are led, (2 * num_pairs, 4, h, w) fp32; None: nowhere.
    """

    errors: ReferenceErrors
    kept: Tensor
    pairs: Tensor | None
    lead: Tensor | None = None


def batch_figures(
    policy: Tensor, reference: Reference, batch: Batch, config: TrainConfig
) -> dict[str, Tensor]:
    """Return the loss of a batch, its parts, and the figures that are watched.

    loss = (preference(unsafe) + w * preference(safe)) / (1 + w) + the terms with a weight above 0

    Dividing by 1 + w keeps log 2 as the value of a zero adapter for every w. The released code averages over
    both kinds of row, which is w = 1.

    Args:
        policy: prediction with the adapter on, shape of `batch.noisy`, fp32.
        reference: prediction of the base model for the same batch.
        batch: the batch.
        config: resolved options.

    Returns:
        Scalars: loss; preference and each term of the objective, times its weight, so that they add up to
        the loss; margin; implicit_accuracy; and without a bank distance (mean squared difference to the
        base model's prediction of the pairs).
        Only the loss and its parts carry gradients. Under row dropout, all figures describe the adapter
        without the dropped neurons: margin and distance are smaller than those of the whole adapter. A pair
        whose caption was dropped counts under the empty prompt in every figure, and is led nowhere.
    """
    end = 2 * batch.num_rows
    errors = pair_errors(squared_error(policy[:end], batch.target[:end]), reference.errors.in_rows())
    weights = errors.winner.new_ones(batch.num_pairs) if batch.weights is None else batch.weights
    terms = _terms(errors, policy[end:], reference.kept, weights, config)
    if batch.lead is not None:
        led = safe_lead(policy[batch.unsafe_rows], reference.lead, batch.lead.weights)
        terms["safe_lead"] = config.anchor_weight * led
    if config.pair_weighting == "star":
        terms["star_anchor"] = star_anchor(
            policy[batch.unsafe_rows],
            reference.pairs[batch.unsafe_rows],
            weights,
            logit_scale=LOSSES[config.objective].logit_scale(config.beta),
        )
    return {"loss": sum(terms.values()), **terms, **watched(errors, policy[:end], reference.pairs)}


def _terms(
    errors: PairErrors, kept: Tensor, ref_kept: Tensor, weights: Tensor, config: TrainConfig
) -> dict[str, Tensor]:
    objective, num_pairs = LOSSES[config.objective], len(weights)
    of_rows = weights.repeat(len(errors.winner) // num_pairs)  # (prompts * pairs,)
    extras = {"focus": config.focus} if "focus" in objective.extras else {}
    if config.pair_weighting == "soft":  # the weights are the labels
        extras["labels"], of_rows = of_rows, torch.ones_like(of_rows)
    losses = objective.loss(errors, beta=config.beta, **extras)  # unsafe prompts, then safe ones
    losses = losses * of_rows
    terms = {"preference": losses[:num_pairs].mean()}
    if len(losses) > num_pairs:
        safe_weight = config.safe_prompt_weight
        terms["preference"] = (terms["preference"] + safe_weight * losses[num_pairs:].mean()) / (
            1 + safe_weight
        )
    if len(kept):
        name = objective.weighed_by["preserve_weight"]
        terms[name] = config.preserve_weight * preservation(kept, ref_kept)
    return terms


@torch.no_grad()
def watched(errors: PairErrors, policy: Tensor, reference: Tensor | None) -> dict[str, Tensor]:
    """Return the figures of some pairs that are watched beside the loss, as scalars.

    Args:
        errors: of the pairs.
        policy: prediction with the adapter on for winners and losers, (2 * rows, 4, h, w).
        reference: prediction with the adapter off, same shape; None: the distance is left out.
    """
    margin = errors.margin
    figures = {"margin": margin.mean(), "implicit_accuracy": (margin > 0).float().mean()}
    return figures if reference is None else figures | {"distance": preservation(policy, reference)}
