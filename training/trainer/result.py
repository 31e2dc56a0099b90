"""What a training run ends with, and the metadata that an expert's file has about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from ..config import TrainConfig, options
from ..experts import adapter
from ..experts.low_rank import LowRank
from ..losses import LOSSES, beta_convention
from ..losses.terms import TERM_OPTIONS
from ..models.noise import FLOW, Schedule
from .kept import kept_text
from .plan import Plan
from .progress import Progress
from .run import Run
from .validation import EVERYDAY, FIGURES

# The ModelSpec standard's names; it has none for flows.
_PREDICTION_TYPES = {"epsilon": "epsilon", "v_prediction": "v", FLOW: "flow"}
COSTLY = 0.25  # side effect above which a run warns
_NOT_STATED = ("steps", "save_every", "rank", "checkpointing")  # under other keys, or without effect


@dataclass(frozen=True)
class TrainResult:
    """What a run ends with.

    Attributes:
        layers: module path -> LowRank, alpha / rank folded in.
        losses: total loss of every step, those before a resume included.
        metrics: of step `steps_done`, as in `metrics.jsonl`.
        steps_done: optimizer steps behind this LoRA; fewer than were taken if an earlier step was better.
        config: resolved options.
        initial_a_hash: see `adapter.initial_a_hash`.
        cancelled: whether the run ended early.
        plan: how its batches were run; None if it was cancelled.
        seconds: time that this call took for its steps; 0 if it was cancelled.
        validations: every measurement on held-out pairs and everyday pictures, with its step.
        kept: what the run kept, see `kept_text`.
        is_reused: whether an earlier run with equal inputs has trained this already.
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
    kept: str = ""
    is_reused: bool = False

    @property
    def validation(self) -> dict[str, float] | None:
        """The last measurement up to `steps_done`; None if there is none."""
        up_to_now = [figures for figures in self.validations if figures["step"] <= self.steps_done]
        return up_to_now[-1] if up_to_now else None

    def validation_text(self) -> str:
        """Return one line for people: the figures on held-out pairs, and whether they ended the run."""
        if self.validation is None or "margin" not in self.validation:
            return "not measured"
        figures = ", ".join(f"{name} {self.validation[name]:.4g}" for name in FIGURES)
        text = f"{figures} after step {self.validation['step']}"
        if self.steps_done < len(self.losses):
            text += (
                f"; the margin grew no further in the {len(self.losses)} steps taken, so that step is kept"
            )
        return text

    @property
    def side_effect(self) -> float | None:
        """Change of everyday pictures as a share of the change of held-out pairs; None: not measured."""
        figures = self.validation or {}
        if EVERYDAY not in figures or not figures.get("distance"):
            return None
        return figures[EVERYDAY] / figures["distance"]

    def kept_text(self) -> str:
        """Return one line for people: what was kept, and what changed of everything else."""
        figures = self.validation or {}
        if EVERYDAY not in figures:
            return f"{self.kept}; the change of everything else was not measured"
        text = f"{self.kept}; everyday prompts that training never saw changed by {figures[EVERYDAY]:.4g}"
        if self.side_effect is None:
            return text
        text += f", {self.side_effect:.1%} of the change on held-out pairs"
        if self.side_effect > COSTLY:
            text += (
                f". WARNING: above {COSTLY:.0%} the expert also changes much that has nothing to do with the "
                "pairs. Raise preserve_weight, or take fewer steps"
            )
        return text


def result_values(result: TrainResult) -> dict[str, Any]:
    """Return the figures of a finished run as plain JSON values; `reused_result` reads them."""
    values = {field.name: getattr(result, field.name) for field in fields(result) if field.name != "layers"}
    return values | {"config": asdict(result.config), "plan": result.plan and result.plan._asdict()}


def reused_result(values: Mapping[str, Any], layers: dict[str, LowRank]) -> TrainResult:
    """Return the result of a run that was finished earlier.

    Args:
        values: from `result_values`.
        layers: of the expert that the run wrote.
    """
    plan = values["plan"] and Plan(**values["plan"])
    read = {**values, "config": TrainConfig(**values["config"]), "plan": plan, "is_reused": True}
    return TrainResult(layers=layers, **read)


def current_result(run: Run, progress: Progress) -> TrainResult:
    """Return what a run that is stopped early has so far."""
    return TrainResult(
        layers=adapter.read_adapter(run.unet),
        losses=list(progress.losses),
        metrics=progress.metrics,
        steps_done=progress.step,
        config=run.config,
        initial_a_hash=run.initial_a_hash,
        cancelled=True,
        validations=list(progress.validations),
        kept=kept_text(run.data, run.config),
    )


def final_result(run: Run, progress: Progress, plan: Plan, *, seconds: float) -> TrainResult:
    """Return what a run ends with: its last adapter, or the best one, which is written into the UNet."""
    best = progress.best
    if best:
        for name, factor in run.parameters.items():
            factor.data.copy_(best.tensors[name])
    result = replace(current_result(run, progress), cancelled=False, plan=plan, seconds=seconds)
    return replace(result, steps_done=best.step, metrics=best.values["metrics"]) if best else result


def training_metadata(
    result: TrainResult,
    schedule: Schedule,
    *,
    title: str,
    base_hash: str,
    pairs_hash: str,
    resolution: int = 0,
) -> dict[str, str]:
    """Return the strings that an expert's file has about its training; equal runs give equal strings.

    Args:
        result: of the run.
        schedule: it was trained with.
        title: name for people.
        base_hash: of the base model's weights.
        pairs_hash: of the content of the pairs.
        resolution: see `TrainingData`; 0: unknown, and left out.
    """
    config = result.config
    metadata = {
        f"alignguard.{option.name}": _plain(getattr(config, option.name))
        for option in options(TrainConfig)
        if option.name not in _NOT_STATED and _has_effect(option.name, config)
    }
    if resolution:
        metadata["modelspec.resolution"] = f"{resolution}x{resolution}"
        metadata["ss_resolution"] = f"({resolution}, {resolution})"
    validation = json.dumps(result.validation, sort_keys=True) if result.validation else "not measured"
    return metadata | {
        "alignguard.beta_convention": beta_convention(config),
        "alignguard.steps": str(result.steps_done),
        "alignguard.complete": _plain(not result.cancelled),
        "alignguard.base_hash": base_hash,
        "alignguard.pairs_hash": pairs_hash,
        "alignguard.initial_a_hash": result.initial_a_hash,
        "alignguard.training_figures": json.dumps(result.metrics, sort_keys=True),
        "alignguard.validation": validation,
        "alignguard.kept": result.kept_text(),
        "modelspec.title": title,
        "modelspec.prediction_type": _PREDICTION_TYPES[schedule.prediction_type],
        "ss_output_name": title,
        "ss_steps": str(result.steps_done),
        "ss_learning_rate": _plain(config.learning_rate),
        "ss_seed": str(config.seed),
    }


def _has_effect(option: str, config: TrainConfig) -> bool:
    """Return whether an option changes anything under these resolved options; files state no other."""
    objective = LOSSES[config.objective]
    if option == "row_dropout":
        return objective.merge_ready
    if option == "reach":
        return config.reach > 0
    if option in TERM_OPTIONS.values():  # a term set to 0 is stated if the objective has it by default
        return max(getattr(config, option), objective.default_weight(option, config.beta)) > 0
    if option in ("validate_every", "patience"):
        return config.validation > 0
    return True


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).removesuffix(".0")
