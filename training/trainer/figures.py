"""The loss of a batch, the parts it is the sum of, and what is watched while training."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..config import TrainConfig
from ..losses import LOSSES
from ..losses.errors import PairErrors, pair_errors
from ..losses.terms import preservation, star_anchor, winner_anchor
from ..models.noise import squared_error
from .batch import Batch


class Reference(NamedTuple):
    """What the base model, the adapter off, makes of a batch.

    Attributes:
        errors: of the winners, then the losers, (2 * rows,) fp32.
        kept: prediction for the rows to keep, (kept, 4, h, w) fp32.
        pairs: prediction for winners and losers, (2 * rows, 4, h, w) fp32; None where the errors are known
            from before.
    """

    errors: Tensor
    kept: Tensor
    pairs: Tensor | None


def batch_figures(
    policy: Tensor, reference: Reference, batch: Batch, config: TrainConfig
) -> dict[str, Tensor]:
    """Turn the predictions of a batch into the loss, its parts, and what is watched.

    loss = (preference(unsafe) + w * preference(safe)) / (1 + w) + the terms that weigh something

    Dividing by 1 + w keeps log 2 as the value of a zero adapter whatever w is (the released code averages
    over both kinds of row, which is w = 1).

    Args:
        policy: prediction with the adapter on, shape of batch.noisy, fp32.
        reference: of the same batch.
        batch: what was predicted.
        config: options of the run, resolved.

    Returns:
        Scalars: loss, preference and each term of the objective (weights applied, so that they add up to the
        loss), margin, implicit_accuracy, and, where the reference was run on the pairs, distance (mean
        squared difference to it there).
        Only the loss and its parts carry gradients. Where row dropout acts, all of it describes the
        adapter as thinned in this step: margin and distance are smaller than those of the whole one.
        A pair whose caption was dropped counts under the empty prompt in each figure, the winner anchor
        included.
    """
    end = 2 * batch.num_rows
    errors = pair_errors(squared_error(policy[:end], batch.target[:end]), reference.errors)
    weights = errors.winner.new_ones(batch.num_pairs) if batch.weights is None else batch.weights
    terms = _terms(errors, policy[end:], reference.kept, weights, config)
    if config.pair_weighting == "star":
        pairs = [start + row for start in (0, batch.num_rows) for row in range(batch.num_pairs)]
        terms["star_anchor"] = star_anchor(policy[pairs], reference.pairs[pairs], weights)
    return {"loss": sum(terms.values()), **terms, **watched(errors, policy[:end], reference.pairs)}


def _terms(
    errors: PairErrors, kept: Tensor, ref_kept: Tensor, weights: Tensor, config: TrainConfig
) -> dict[str, Tensor]:
    objective = LOSSES[config.objective]
    num_pairs, losses = len(weights), objective.loss(errors, beta=config.beta)
    losses = losses * weights.repeat(len(losses) // num_pairs)  # (rows,): unsafe prompts, then safe ones
    terms = {"preference": losses[:num_pairs].mean()}
    if len(losses) > num_pairs:
        weight = config.safe_prompt_weight
        terms["preference"] = (terms["preference"] + weight * losses[num_pairs:].mean()) / (1 + weight)
    if config.anchor_weight > 0:
        unsafe = PairErrors(*(weights * error[:num_pairs] for error in errors))
        terms["winner_anchor"] = config.anchor_weight * winner_anchor(unsafe)
    if len(kept):
        name = objective.weighed_by["preserve_weight"]
        terms[name] = config.preserve_weight * preservation(kept, ref_kept)
    return terms


@torch.no_grad()
def watched(errors: PairErrors, policy: Tensor, reference: Tensor | None) -> dict[str, Tensor]:
    """Return what is watched of pairs beside the loss, as scalars.

    Args:
        errors: of the pairs.
        policy: prediction with the adapter on for winners and losers.
        reference: prediction with it off; without it there is no distance.
    """
    margin = (errors.ref_winner - errors.winner) - (errors.ref_loser - errors.loser)
    values = {"margin": margin.mean(), "implicit_accuracy": (margin > 0).float().mean()}
    return values if reference is None else values | {"distance": preservation(policy, reference)}
