"""Whether a saved state belongs to this run, and whether all processes take part in the same run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import TrainConfig
from ..models.hashes import content_hash
from ..models.noise import Schedule
from ..pairs.training_data import TrainingData
from .run import Run
from .state import State

_WITHOUT_EFFECT = ("save_every", "checkpointing")  # on the expert
_FREE_SETTINGS = {  # lr_schedule -> options that may differ when a run is resumed
    "constant": ("steps", *_WITHOUT_EFFECT),
    "cosine": _WITHOUT_EFFECT,  # the learning rate of every step depends on `steps`
    "settle": _WITHOUT_EFFECT,  # likewise
}
_ENCODED = ("winner", "loser", "neutral", "prompts", "empty")  # tables that `encoding_hash` names


def run_identity(run: Run, base_hash: str) -> dict[str, Any]:
    """Return plain JSON values that two runs share only if one can continue the other.

    Args:
        run: with resolved options.
        base_hash: of all weights of the base model.
    """
    free = _FREE_SETTINGS[run.config.lr_schedule]
    settings = {name: value for name, value in asdict(run.config).items() if name not in free}
    trained_on = [run.weights, *(bucket.pairs for bucket in run.data.buckets)]
    if run.config.pair_weighting == "relabel":  # which pictures win
        trained_on += [gap for gap in (run.data.cost_gap, run.data.quality_gap) if gap is not None]
    return {
        "settings": settings | {"prediction_type": run.schedule.prediction_type},
        "data": _tensors_digest(trained_on, run.data.encoding_hash),
        "noise": _tensors_digest([run.schedule.levels]),
        "base_hash": base_hash,
    }


def ending_facts(
    data: TrainingData, schedule: Schedule, config: TrainConfig, base_hash: str
) -> dict[str, Any]:
    """Return plain JSON values that two runs share only if they end with the same expert.

    Unlike `run_identity` they are known before anything is measured.

    Args:
        data: encoded pairs.
        schedule: of the family.
        config: options, with the precision that the device has.
        base_hash: of all weights of the base model.
    """
    tables = {field.name: getattr(data, field.name) for field in fields(data) if field.name not in _ENCODED}
    tables["buckets"] = [list(bucket) for bucket in data.buckets]  # plain: where the pack is does not matter
    settings = {name: value for name, value in asdict(config).items() if name not in _WITHOUT_EFFECT}
    return {
        "settings": settings | {"prediction_type": schedule.prediction_type},
        "data": content_hash(tables, "the training data"),
        "noise": _tensors_digest([schedule.levels]),
        "base_hash": base_hash,
        "torch": torch.__version__,
    }


def refuse_other_run(folder: Path, saved: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Check that a state belongs to this run.

    Args:
        folder: of the run.
        saved: values of the state.
        identity: of this run.

    Raises:
        ValueError: if it belongs to another run; the error names the differences.
    """
    if differences := _differences(saved, identity):
        raise ValueError(
            f"the run in {folder} cannot be resumed: {'; '.join(differences)}. "
            "Set these back, or choose a new run folder."
        )


def refuse_discord(run: Run, folder: Path, identity: Mapping[str, Any], state: State | None) -> None:
    """Check that all processes have the same run and state; else they would add up unrelated gradients.

    Raises:
        ValueError: if a process has another one than the first process.
    """
    state_text = f"the state {_digest(state.values)[:8]} after step {state.step}" if state else "no state"
    messages = run.processes.exchange(json.dumps([_digest(identity), state_text]))
    first_identity, first_state = json.loads(messages[0])
    for number, message in enumerate(messages):
        other_identity, other_state = json.loads(message)
        if other_identity != first_identity:
            raise ValueError(
                f"process {number} has other options, pairs or another base model than process 0. Start all "
                "with the same command, on copies of the same files."
            )
        if other_state != first_state:
            raise ValueError(
                f"process {number} found {other_state} in {folder}, process 0 found {first_state}. Use a run "
                "folder on a disk that all processes see."
            )


def _differences(saved: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    if "base_hash" not in saved:
        return ["its state is from an earlier version, which did not record the whole base model"]
    before, now = dict(saved.get("settings", {})), identity["settings"]
    if before.get("precision") == "auto":  # older states have the option instead of what it resolved to
        before["precision"] = now["precision"]
    names = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    differences = [f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in names]
    if saved.get("data") != identity["data"]:
        differences.append("the pairs or their encoding have changed")
    if saved.get("noise") != identity["noise"]:
        differences.append("the noise schedule has changed")
    if saved["base_hash"] != identity["base_hash"]:
        differences.append("the base model is a different one")
    return differences


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _tensors_digest(tensors: Iterable[Tensor], text: str = "") -> str:
    digest = hashlib.sha256(text.encode())
    for tensor in tensors:
        digest.update(tensor.detach().cpu().float().contiguous().numpy())
    return digest.hexdigest()
