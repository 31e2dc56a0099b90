"""Figures on held-out pairs and everyday pictures, on the same draws every time.

So only the expert differs between two measurements.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..experts import adapter
from ..losses.errors import pair_errors
from ..models.noise import squared_error
from ..pairs.training_data import Bucket
from .batch import fetch_pairs, predict_batch, predicted
from .draws import DrawRules, FixedDraws, fixed_draws
from .figures import watched
from .kept import MeasuredRows
from .progress import Progress
from .run import Run

DRAWS = 4  # of each held-out pair, one from each quarter of the timesteps
FIGURES = ("margin", "implicit_accuracy", "distance")
EVERYDAY = "everyday_distance"


class Validation:
    """Measures held-out pairs and everyday pictures on fixed draws; the base model runs on them once.

    Args:
        run: its UNet is measured, `micro_batch` pairs at once.
        progress: of the run; the figures are added to it.
        buckets: of the held-out pairs, see `held_out`; may be empty.
        everyday: pictures that training does not keep; None: they are not measured.
    """

    def __init__(
        self, run: Run, progress: Progress, buckets: Sequence[Bucket], everyday: MeasuredRows | None = None
    ) -> None:
        self.run, self.progress, self._everyday = run, progress, everyday
        self._parts = [part for bucket in buckets for part in held_out_draws(run, bucket)]
        self._num_draws = DRAWS * sum(len(bucket.pairs) for bucket in buckets)  # in all processes
        self._ref_predictions: list[Tensor] = []  # on the CPU, filled by the first measurement
        self._ref_everyday: Tensor | None = None  # likewise

    def after_step(self) -> None:
        """Measure if a measurement is due after the last step.

        Raises:
            RuntimeError: if a figure is not finite.
        """
        step = self.progress.step
        due = self.progress.is_finished or (self._num_draws and step % self.run.config.validate_every == 0)
        if not due or not (self._num_draws or self._everyday):
            return
        with self.progress.unfinished_step():  # a step without its figures counts as not done
            self.progress.measured(self.measure())

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Run the whole adapter, without row dropout, on every draw.

        Returns:
            Of held-out pairs margin, implicit_accuracy and distance, see `watched`: means over all draws,
            under the unsafe and (where it is trained) the safe prompt. Of everyday pictures
            `everyday_distance`, the mean squared difference to the base model's prediction.
        """
        pairs = self._measure_pairs() if self._num_draws else {}
        return pairs if self._everyday is None else pairs | {EVERYDAY: self._measure_everyday()}

    def _measure_everyday(self) -> float:
        run, rows = self.run, self._everyday
        if self._ref_everyday is None:
            with adapter.reference(run.unet):
                self._ref_everyday = self._predicted(rows)
        return float((self._predicted(rows) - self._ref_everyday).square().mean())

    def _predicted(self, rows: MeasuredRows) -> Tensor:
        """Return the UNet's prediction of everyday pictures, (rows, 4, h, w) fp32 on the CPU."""
        parts = []
        for part in torch.arange(len(rows.noisy)).split(self.run.micro_batch):
            self.run.callbacks.check_cancel()
            captions = rows.captions[part].to(self.run.device)
            noisy, timesteps = rows.noisy[part].to(self.run.device), rows.timesteps[part].to(self.run.device)
            parts.append(predicted(self.run, noisy, timesteps, captions).cpu())
        return torch.cat(parts)

    def _measure_pairs(self) -> dict[str, float]:
        run = self.run
        totals = torch.zeros(len(FIGURES), device=run.device)
        for number, (pairs, draws) in enumerate(self._parts):
            run.callbacks.check_cancel()
            batch = fetch_pairs(run, pairs, draws)
            if number == len(self._ref_predictions):
                with adapter.reference(run.unet):
                    self._ref_predictions.append(predict_batch(run, batch).cpu())
            reference, policy = self._ref_predictions[number].to(run.device), predict_batch(run, batch)
            errors, ref_errors = (squared_error(output, batch.target) for output in (policy, reference))
            figures = watched(pair_errors(errors, ref_errors), policy, reference)
            totals += torch.stack([figures[name] for name in FIGURES]) * (len(pairs) / self._num_draws)
        run.processes.add_up([totals])
        return dict(zip(FIGURES, totals.tolist(), strict=True))


def held_out_draws(run: Run, bucket: Bucket) -> list[tuple[Tensor, FixedDraws]]:
    """Return this process's share of the draws of a bucket of held-out pairs, in parts of `micro_batch`.

    Returns:
        Pair numbers, (pairs,) int64, and one draw for each; a pair occurs once for each of its draws.
    """
    config = run.config
    share = torch.arange(DRAWS * len(bucket.pairs))[run.processes.number :: run.processes.count]
    if not len(share):
        return []
    pairs = bucket.pairs[share // DRAWS]
    dropout = float(config.prompts == "empty")
    rules = DrawRules.of(config)._replace(caption_dropout=dropout, flip=0.0, num_fixed=DRAWS, reach=0.0)
    draws = fixed_draws(pairs, share % DRAWS, rules, latent_shape=bucket.latent_shape)
    parts = zip(*(field.split(run.micro_batch) for field in draws), strict=True)
    return list(zip(pairs.split(run.micro_batch), (FixedDraws(*part) for part in parts), strict=True))
