"""What a training run ends with."""

from __future__ import annotations

from dataclasses import dataclass, field

from .config import TrainConfig
from .experts import adapter
from .experts.low_rank import LowRank
from .preflight import Plan
from .step import Run


@dataclass(frozen=True)
class TrainResult:
    """What a run ends with.

    Attributes:
        layers: module path -> LowRank, alpha / rank folded in.
        losses: total loss of every step, those before a resume included.
        metrics: the figures of step `steps_done`, as in `metrics.jsonl`.
        steps_done: optimizer steps behind this LoRA; fewer than were taken where an earlier one was better.
        config: options of the run, resolved.
        initial_a_hash: see `adapter.initial_a_hash`.
        cancelled: whether the run ended before its last step.
        plan: how its batches were run; None where it was cancelled.
        seconds: what this call took for its steps; 0 where it was cancelled.
        validations: every measurement on held-out pairs, each with its step.
    """

    layers: dict[str, LowRank]
    losses: list[float]
    metrics: dict[str, float]
    steps_done: int
    config: TrainConfig
    initial_a_hash: str
    cancelled: bool = False
    plan: Plan | None = None
    seconds: float = 0.0
    validations: list[dict[str, float]] = field(default_factory=list)

    @property
    def validation(self) -> dict[str, float] | None:
        """The last measurement up to `steps_done`, None where there is none."""
        until = [figures for figures in self.validations if figures["step"] <= self.steps_done]
        return until[-1] if until else None

    def validation_text(self) -> str:
        """Say what was measured on held-out pairs, and whether that ended the run, in one line for people."""
        if self.validation is None:
            return "not measured"
        figures = ", ".join(
            f"{name} {value:.4g}" for name, value in self.validation.items() if name != "step"
        )
        text = f"{figures} after step {self.validation['step']}"
        if self.steps_done < len(self.losses):
            text += (
                f"; the margin grew no further in the {len(self.losses)} steps taken, so that step is kept"
            )
        return text


def current_result(run: Run) -> TrainResult:
    """Return what a run that is stopped has by now."""
    return _result(run, run.step, run.metrics, cancelled=True)


def final_result(run: Run) -> TrainResult:
    """Return what a run ends with: its last adapter, or the best, which is put into the UNet."""
    if run.best is None:
        return _result(run, run.step, run.metrics)
    for name, parameter in run.parameters.items():
        parameter.data.copy_(run.best.tensors[name])
    return _result(run, run.best.step, run.best.values["metrics"])


def _result(run: Run, step: int, metrics: dict[str, float], *, cancelled: bool = False) -> TrainResult:
    return TrainResult(
        layers=adapter.read_adapter(run.unet),
        losses=list(run.losses),
        metrics=metrics,
        steps_done=step,
        config=run.config,
        initial_a_hash=run.initial_a_hash,
        cancelled=cancelled,
        validations=list(run.validations),
    )
