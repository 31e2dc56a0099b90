"""Whether a run may go on from what its folder holds: same options, data, noise and base model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from . import checkpoint
from .checkpoint import State
from .config import TrainConfig
from .event_file import EVENTS
from .models.noise import NoiseSchedule

EXPERT = "expert.safetensors"  # what the run ended with, beside `state` and `metrics.jsonl`
_FREE_SETTINGS = {  # what may differ on resume, by lr_schedule, and it is still the same run
    "constant": ("steps", "save_every", "checkpointing"),
    "cosine": ("save_every", "checkpointing"),  # every step's learning rate depends on the number of steps
}


def run_identity(
    config: TrainConfig,
    encoding_hash: str,
    *,
    chosen: Iterable[Tensor],
    schedule: NoiseSchedule,
    base_hash: str,
) -> dict[str, Any]:
    """Return what makes a run the run it is, as plain JSON values.

    Args:
        config: options of the run, resolved.
        encoding_hash: of the data; another resolution or autoencoder makes another run.
        chosen: the pairs that are trained on, and their weights.
        schedule: that noises the pairs, and what the base model predicts.
        base_hash: of all weights of the base model.
    """
    free = _FREE_SETTINGS[config.lr_schedule]
    settings = {name: value for name, value in asdict(config).items() if name not in free}
    return {
        "settings": settings | {"prediction_type": schedule.prediction_type},
        "data": _digest(chosen, encoding_hash),
        "noise": _digest([schedule.alphas_cumprod]),
        "base_hash": base_hash,
    }


def open_run_folder(folder: Path, identity: Mapping[str, Any], *, resume: bool) -> State | None:
    """Prepare the folder of a run; return the state to go on from.

    Args:
        folder: what an earlier run left is renamed unless the run is resumed.
        identity: see `run_identity`.
        resume: go on from the newest whole state.

    Returns:
        The state, or None to start from the beginning.

    Raises:
        ValueError: if the state belongs to another run; the differences are named.
    """
    states, metrics = folder / "state", folder / "metrics.jsonl"
    state = checkpoint.load_newest(states) if resume else None
    if state is None:
        for earlier in (states, metrics, folder / EXPERT, folder / EVENTS):
            checkpoint.set_aside(earlier)
        return None
    differences = _differences(state.values, identity)
    if differences:
        raise ValueError(
            f"the run in {folder} cannot be resumed: {'; '.join(differences)}. "
            "Set these back, or choose a new run folder."
        )
    checkpoint.trim_metrics(metrics, state.step)
    return state


def _differences(saved: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    if "base_hash" not in saved:
        return ["it is of an earlier version, which did not note the whole base model it is for"]
    before, now = dict(saved.get("settings", {})), own["settings"]
    if before.get("precision") == "auto":  # as states said once, and not what it meant
        before["precision"] = now["precision"]
    names = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    found = [f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in names]
    if saved.get("data") != own["data"]:
        found.append("the pairs or their encoding have changed")
    if saved.get("noise") != own["noise"]:
        found.append("the noise schedule has changed")
    if saved["base_hash"] != own["base_hash"]:
        found.append("the base model is another one")
    return found


def _digest(tensors: Iterable[Tensor], text: str = "") -> str:
    digest = hashlib.sha256(text.encode())
    for tensor in tensors:
        digest.update(tensor.detach().cpu().float().contiguous().numpy())
    return digest.hexdigest()
