"""Figures on pairs held out of training, on draws that are the same every time: only the expert differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..experts import adapter
from ..losses import LOSSES
from ..losses.errors import pair_errors
from ..models.noise import named_generator, squared_error
from ..pairs.training_data import Bucket, TrainingData
from .bank import FixedDraws, fixed_draws
from .batch import rows_of_pairs, stack_rows
from .figures import watched
from .pair_weighting import trusted
from .run import Run
from .state import State
from .step import predict_batch, refuse_not_finite

DRAWS = 4  # of each held-out pair, one from each quarter of the timesteps
FIGURES = ("margin", "implicit_accuracy", "distance")


class Validation:
    """The held-out pairs of a run with their fixed draws; what the base model makes of them is kept.

    Args:
        run: with its plan made; `micro_batch` pairs are run at once.
        buckets: of the held-out pairs, see `held_out`; may be none.
    """

    def __init__(self, run: Run, buckets: Sequence[Bucket]) -> None:
        self._run = run
        self._parts = [part for bucket in buckets for part in _parts(run, bucket)]
        self._num_draws = DRAWS * sum(len(bucket.pairs) for bucket in buckets)  # in all processes
        self._references: list[Tensor] = []  # predictions, on the CPU; filled at the first measurement

    def after_step(self) -> None:
        """Measure where it is time to; keep the adapter if it is the best so far and that is asked for.

        Raises:
            RuntimeError: if a figure is not finite; `run.good` is then the state to go back to.
        """
        run, config = self._run, self._run.config
        if not self._num_draws or (run.step % config.validate_every and run.step < config.steps):
            return
        run.whole = False  # a step whose figures are missing counts as not done
        figures = self.measure()
        named = {f"validation_{name}": value for name, value in figures.items()}
        refuse_not_finite(run, named, step=run.step)
        run.validations.append({"step": run.step, **figures})
        run.metrics |= named
        if config.patience and best_step(run) == run.step:
            own = {name: parameter.detach().cpu().clone() for name, parameter in run.parameters.items()}
            run.best, run.best_before = State(run.step, own, {"metrics": run.metrics}), run.best
        run.whole = True

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Run the whole adapter, no row dropped, on every draw of every held-out pair.

        Returns:
            margin, implicit_accuracy and distance as `figures.watched` has them, means over all draws, under
            the unsafe and (where it is trained) the safe prompt.
        """
        run = self._run
        totals = torch.zeros(len(FIGURES), device=run.device)
        for number, (pairs, draws) in enumerate(self._parts):
            run.check_cancel()
            batch = stack_rows(rows_of_pairs(run, pairs, draws), run.schedule, num_pairs=len(pairs))
            if number == len(self._references):
                with adapter.reference(run.unet):
                    self._references.append(predict_batch(run, batch).cpu())
            reference, policy = self._references[number].to(run.device), predict_batch(run, batch)
            errors = [squared_error(prediction, batch.target) for prediction in (policy, reference)]
            figures = watched(pair_errors(*errors), policy, reference)
            totals += torch.stack([figures[name] for name in FIGURES]) * (len(pairs) / self._num_draws)
        run.processes.add_up([totals])
        return dict(zip(FIGURES, totals.tolist(), strict=True))


def best_step(run: Run) -> int:
    """Return the step of the first measurement with the largest margin."""
    return max(run.validations, key=lambda figures: figures["margin"])["step"]


def is_settled(run: Run) -> bool:
    """Say whether so many measurements passed without a larger margin that training is to end."""
    if not run.config.patience or not run.validations:
        return False
    since = sum(figures["step"] > best_step(run) for figures in run.validations)
    return since >= run.config.patience


def _parts(run: Run, bucket: Bucket) -> list[tuple[Tensor, FixedDraws]]:
    """Cut this process's share of the draws of a bucket into batches, whose size may be its own too."""
    config = run.config
    share = torch.arange(DRAWS * len(bucket.pairs))[run.processes.number :: run.processes.count]
    if not len(share):
        return []
    pairs = bucket.pairs[share // DRAWS]
    draws = fixed_draws(
        pairs,
        share % DRAWS,
        seed=config.seed,
        num_draws=DRAWS,
        latent_shape=bucket.latent_shape,
        num_timesteps=LOSSES[config.objective].num_timesteps,
        caption_dropout=float(config.prompts == "empty"),
        flip=0.0,
    )
    cut = zip(*(field.split(run.micro_batch) for field in draws), strict=True)
    return list(zip(pairs.split(run.micro_batch), (FixedDraws(*part) for part in cut), strict=True))


MOST = 32  # pairs; more cost more time than their figures gain


def held_out(
    data: TrainingData, share: float, *, seed: int, trusted_only: bool = False
) -> tuple[TrainingData, tuple[Bucket, ...]]:
    """Part the pairs into those to train on and those to measure.

    A held-out pair is also missing where its safe image would have stood in for a neutral one.

    Args:
        data: what was encoded.
        share: of the pairs that may be held out, in [0, 1], 0 for none; at least one and at most `MOST`
            are, and one is always left to train on.
        seed: of the run; it decides which.
        trusted_only: hold out only pairs that are `trusted`.

    Returns:
        The data to train on, and the buckets of the held-out pairs; tables and numbers of the pairs are the
        same for both.

    Raises:
        ValueError: if there are not two pairs that may be held out: one of them is trained on.
    """
    if share == 0:
        return data, ()
    numbers = torch.cat([bucket.pairs for bucket in data.buckets])
    if trusted_only and data.safety_gap is not None:
        numbers = numbers[trusted(data)[numbers]]
    count = min(MOST, max(1, round(share * len(numbers))), len(numbers) - 1)
    if count < 1:
        raise ValueError(
            f"validation needs a pair to hold out and one to train on, got {len(numbers)} that can be held "
            f"out of {data.num_pairs}. Use more pairs, or set validation to 0."
        )
    order = torch.randperm(len(numbers), generator=named_generator(f"{seed}/held out"))
    held = numbers[order[:count]]
    trained = [_without(bucket, held, data) for bucket in data.buckets]
    measured = [
        bucket._replace(pairs=bucket.pairs[torch.isin(bucket.pairs, held)]) for bucket in data.buckets
    ]
    return replace(data, buckets=_not_empty(trained)), _not_empty(measured)


def _without(bucket: Bucket, held: torch.Tensor, data: TrainingData) -> Bucket:
    pairs, neutral = bucket.pairs[~torch.isin(bucket.pairs, held)], bucket.neutral
    if data.neutral_pair is not None:
        neutral = neutral[~torch.isin(data.neutral_pair[neutral], held)]
    return bucket._replace(pairs=pairs, neutral=neutral)


def _not_empty(buckets: list[Bucket]) -> tuple[Bucket, ...]:
    return tuple(bucket for bucket in buckets if len(bucket.pairs))
