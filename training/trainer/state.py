"""The resume state of a run: atomic to write, never read when torn, the two newest kept.

One file holds all of it, so that one rename makes a state appear: the tensors as safetensors, the
plain values (step, losses, settings) as JSON in the file's own header.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from ..config import TrainConfig
from ..models.noise import NoiseSchedule
from . import state as checkpoint

if TYPE_CHECKING:
    pass


log = logging.getLogger(__name__)

KEPT = 2  # one more than needed: a disk may lose the newest with the power
FORMAT = "alignguard-state-1"


@dataclass(frozen=True)
class State:
    """What a run needs to go on: the tensors by name, and plain JSON values."""

    step: int
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


def save_state(folder: Path, state: State) -> Path:
    """Write a state and drop all but the two newest.

    States of later steps are dropped too: the run went back behind them, or could not read them.

    Args:
        folder: the `state` folder of a run; made when missing.
        state: tensors and JSON values after `state.step` optimizer steps.

    Returns:
        The file written, `step_<step>.safetensors`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{state.step:08d}.safetensors"
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
    values = json.dumps({"step": state.step, **state.values})
    for later in [other for other in _states(folder) if other > path]:
        later.unlink()  # before the write: should it fail, the newest state left is one to go on from
    _write(path, save(tensors, metadata={"format": FORMAT, "values": values}))
    for old in _states(folder)[KEPT:]:
        old.unlink()
    return path


def load_newest(folder: Path) -> State | None:
    """Read the newest whole state; a torn file is named in the log and the one before it is read.

    Returns:
        The state, or None where the folder holds none.
    """
    for path in _states(folder):
        try:
            return _read(path)
        except (SafetensorError, ValueError, KeyError) as error:
            log.warning("%s is not a whole resume state (%s); reading the one before it.", path.name, error)
    return None


def pack(parameters: Mapping[str, nn.Parameter], optimizer: Optimizer) -> dict[str, Tensor]:
    """Name the tensors of the adapter and of its optimizer.

    Args:
        parameters: the adapter's factors by name, in the order the optimizer was given them.
        optimizer: an optimizer over exactly these, with one parameter group.

    Returns:
        `adapter.<name>` and `optimizer.<entry>.<name>`, such as `optimizer.exp_avg.<name>`.
    """
    tensors = {f"adapter.{name}": parameter.data for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        for entry, tensor in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{entry}.{name}"] = tensor
    return tensors


def unpack(
    tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], optimizer: Optimizer
) -> None:
    """Write packed tensors back: afterwards the run goes on as if it had never stopped.

    Raises:
        ValueError: if the state belongs to an adapter of other modules; nothing is written then.
    """
    saved = {key.removeprefix("adapter.") for key in tensors if key.startswith("adapter.")}
    if saved != parameters.keys():
        raise ValueError(
            f"the resume state holds {len(saved)} LoRA factors, the adapter {len(parameters)} others. "
            "Resume with the same model and targets, or choose a new run folder."
        )
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[f"adapter.{name}"])
    index = {name: number for number, name in enumerate(parameters)}  # an optimizer knows numbers only
    entries: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, entry, name = key.split(".", 2)
            entries.setdefault(index[name], {})[entry] = tensor.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})


def set_aside(path: Path) -> None:
    """Rename what an earlier run left, so that a new one neither mixes with it nor deletes it."""
    if path.exists():
        number = 1
        while (target := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
            number += 1
        path.rename(target)


def trim_metrics(path: Path, step: int) -> None:
    """Drop the lines of `metrics.jsonl` after a step: the resumed run writes them again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        _write(path, "".join(line for line in lines if _step_of(line) <= step).encode())


def append_metrics(path: Path, figures: Mapping[str, float]) -> None:
    """Add one line of JSON to `metrics.jsonl`, whole or not at all."""
    with path.open("ab", buffering=0) as file:
        end = file.tell()
        line = json.dumps(figures).encode() + b"\n"
        try:
            if file.write(line) < len(line):  # a disk with room for a part of it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(end)
            raise


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return math.inf  # torn when the run was killed


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_*.safetensors"), reverse=True)  # newest first


def _read(path: Path) -> State:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise ValueError(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
        values = json.loads(metadata["values"])
        # SafeOpen is no mapping: it has keys() but cannot be iterated
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    return State(step=values.pop("step"), tensors=tensors, values=values)


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name("writing.tmp")  # a fixed name: what a killed run left is overwritten
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)  # a full disk needs the room
        raise
    os.replace(temporary, path)


EVENTS = "tensorboard"  # folder beside `metrics.jsonl`


BANK = "bank"  # among the tensors of a state


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
