"""From cached data to an expert on disk: the one path that the node and the command line share."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from itertools import count
from pathlib import Path

from torch import nn

from .config import TrainConfig, options
from .data.cache import TrainingData
from .expert import SafetyExpert, load_expert, save_expert
from .losses import LOSSES, beta_convention
from .losses.terms import TERM_OPTIONS
from .noise import NoiseSchedule
from .taxonomy import normalize_categories, normalize_category
from .tensor_file import refuse_existing
from .trainer import TrainResult, train

log = logging.getLogger(__name__)

_PREDICTION_TYPES = {"epsilon": "epsilon", "v_prediction": "v"}  # the ModelSpec standard's names
_STATED_ELSEWHERE = ("steps", "save_every", "rank")  # steps done count; the file's rank is written on saving


def train_expert(
    unet: nn.Module,
    data: TrainingData,
    schedule: NoiseSchedule,
    config: TrainConfig,
    *,
    category: str,
    family: str,
    base_hash: str,
    out: Path,
    run_dir: Path | None = None,
    resume: bool = False,
    on_progress: Callable[[int, int, float], None] | None = None,
) -> tuple[SafetyExpert, TrainResult]:
    """Train an expert and write it with everything needed to know and repeat it.

    When the run ends early after at least one step, what there is goes to `<stem>_partial.safetensors`
    beside `out` before the exception is passed on.

    Args:
        unet: frozen UNet, see `train`.
        data: cached latents and embeddings of the pairs.
        schedule: of the family.
        config: options of the run.
        category: of the pairs, in any accepted spelling; several are separated by commas.
        family: base model line, `sd15` and so on.
        base_hash: of the base model's weights, for the file's metadata.
        out: the new `.safetensors` file. Should the name be taken while training, a number is added.
        run_dir: see `train`.
        resume: see `train`.
        on_progress: see `train`.

    Returns:
        The expert as it can be read from the file, named after it, and the figures of the run.

    Raises:
        FileExistsError: if `out` exists, before anything is trained.
        ValueError: if the category is blank, the name does not end in `.safetensors`, or as in `train`.
        RuntimeError: if training changed nothing, or as in `train`.
    """
    out = Path(out)
    categories = normalize_categories(category) or (normalize_category(category),)  # a blank one is refused
    _check_out(out)

    def write(result: TrainResult, path: Path) -> Path:
        metadata = training_metadata(
            result, schedule, title=out.stem, base_hash=base_hash, pairs_hash=data.pairs_hash
        )
        return _save_numbered(SafetyExpert(result.layers, categories, family, metadata, path.name), path)

    def keep(result: TrainResult) -> None:
        path = write(result, out.with_name(f"{out.stem}_partial.safetensors"))
        log.info("stopped after %s steps; kept as %s", result.steps_done, path.name)

    result = train(
        unet, data, schedule, config, on_progress=on_progress, on_stop=keep, run_dir=run_dir, resume=resume
    )
    _check_learned(result)
    return load_expert(write(result, out)), result


def expert_name(category: str) -> str:
    """Return the file name, without ending, of an expert: `alignguard_self_harm`.

    Raises:
        ValueError: if the category is blank.
    """
    names = normalize_categories(category) or (normalize_category(category),)
    return "_".join(["alignguard", *(re.sub(r"\W+", "_", name).strip("_") for name in names)])


def training_metadata(
    result: TrainResult, schedule: NoiseSchedule, *, title: str, base_hash: str, pairs_hash: str
) -> dict[str, str]:
    """Return the strings an expert's file carries about its training; equal runs give equal strings.

    Args:
        result: of the run.
        schedule: it was trained with.
        title: name for people.
        base_hash: of the base model's weights.
        pairs_hash: of the pairs' content.
    """
    config = result.config
    own = {
        f"alignguard.{option.name}": _plain(getattr(config, option.name))
        for option in options(TrainConfig)
        if option.name not in _STATED_ELSEWHERE and _applies(option.name, config)
    }
    return own | {
        "alignguard.beta_convention": beta_convention(config),
        "alignguard.steps": str(result.steps_done),
        "alignguard.complete": _plain(not result.cancelled),
        "alignguard.base_hash": base_hash,
        "alignguard.pairs_hash": pairs_hash,
        "alignguard.initial_a_hash": result.initial_a_hash,
        "alignguard.training_figures": json.dumps(result.metrics, sort_keys=True),
        "alignguard.validation": "not measured",
        "modelspec.title": title,
        "modelspec.prediction_type": _PREDICTION_TYPES[schedule.prediction_type],
        "ss_output_name": title,
        "ss_steps": str(result.steps_done),
        "ss_learning_rate": _plain(config.learning_rate),
        "ss_seed": str(config.seed),
    }


def _applies(option: str, config: TrainConfig) -> bool:
    """Say whether an option changes anything under resolved options; a file states no other."""
    objective = LOSSES[config.objective]
    if option == "row_dropout":
        return objective.merge_ready
    if option in TERM_OPTIONS.values():  # a term left out is stated where the objective has it by itself
        return max(getattr(config, option), objective.own_weight(option, config.beta)) > 0
    return True


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).removesuffix(".0")


def _check_out(out: Path) -> None:
    """Find out before hours of training what would stop the file from being written after them."""
    if out.suffix != ".safetensors":
        raise ValueError(f"an expert's file name must end in .safetensors, got {out.name!r}.")
    refuse_existing(out)
    out.parent.mkdir(parents=True, exist_ok=True)


def _check_learned(result: TrainResult) -> None:
    if not any(bool(layer.up.count_nonzero()) for layer in result.layers.values()):
        raise RuntimeError(
            f"training changed nothing in {result.steps_done} steps, so no expert is written. "
            "Raise learning_rate, or lower beta."
        )


def _save_numbered(expert: SafetyExpert, path: Path) -> Path:
    """Save under the name, or the name with the first free number: a finished run is never lost."""
    for number in count(1):
        try:
            return save_expert(expert, path if number == 1 else path.with_stem(f"{path.stem}_{number}"))
        except FileExistsError:
            log.info("%s is taken; trying the next number", path.name)
    raise AssertionError("count never ends")
