"""What a training run ends with."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from ..config import TrainConfig, options
from ..experts import adapter
from ..experts.low_rank import LowRank
from ..losses import LOSSES, beta_convention
from ..losses.terms import TERM_OPTIONS
from ..models.noise import NoiseSchedule
from .plan import Plan
from .run import Run


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


_PREDICTION_TYPES = {"epsilon": "epsilon", "v_prediction": "v"}  # the ModelSpec standard's names


_NOT_STATED = ("steps", "save_every", "rank", "checkpointing")  # stated otherwise, or without effect


def training_metadata(
    result: TrainResult,
    schedule: NoiseSchedule,
    *,
    title: str,
    base_hash: str,
    pairs_hash: str,
    resolution: int = 0,
) -> dict[str, str]:
    """Return the strings an expert's file carries about its training; equal runs give equal strings.

    Args:
        result: of the run.
        schedule: it was trained with.
        title: name for people.
        base_hash: of the base model's weights.
        pairs_hash: of the pairs' content.
        resolution: see `TrainingData`.
    """
    config = result.config
    own = {
        f"alignguard.{option.name}": _plain(getattr(config, option.name))
        for option in options(TrainConfig)
        if option.name not in _NOT_STATED and _applies(option.name, config)
    }
    if resolution:
        own["modelspec.resolution"] = f"{resolution}x{resolution}"
        own["ss_resolution"] = f"({resolution}, {resolution})"
    return own | {
        "alignguard.beta_convention": beta_convention(config),
        "alignguard.steps": str(result.steps_done),
        "alignguard.complete": _plain(not result.cancelled),
        "alignguard.base_hash": base_hash,
        "alignguard.pairs_hash": pairs_hash,
        "alignguard.initial_a_hash": result.initial_a_hash,
        "alignguard.training_figures": json.dumps(result.metrics, sort_keys=True),
        "alignguard.validation": _validation(result),
        "modelspec.title": title,
        "modelspec.prediction_type": _PREDICTION_TYPES[schedule.prediction_type],
        "ss_output_name": title,
        "ss_steps": str(result.steps_done),
        "ss_learning_rate": _plain(config.learning_rate),
        "ss_seed": str(config.seed),
    }


def _validation(result: TrainResult) -> str:
    return json.dumps(result.validation, sort_keys=True) if result.validation else "not measured"


def _applies(option: str, config: TrainConfig) -> bool:
    """Say whether an option changes anything under resolved options; a file states no other."""
    objective = LOSSES[config.objective]
    if option == "row_dropout":
        return objective.merge_ready
    if option in TERM_OPTIONS.values():  # a term left out is stated where the objective has it by itself
        return max(getattr(config, option), objective.own_weight(option, config.beta)) > 0
    if option in ("validate_every", "patience"):
        return config.validation > 0
    return True


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).removesuffix(".0")
