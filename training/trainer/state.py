"""The resume state of a run: written atomically, never read when torn; the two newest are kept.

One file holds all of it, so that one rename makes a state appear: the tensors as safetensors, the plain
values (step, losses, settings) as JSON in the header of the file.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

log = logging.getLogger(__name__)

KEPT = 2  # one more than needed: a power cut may lose the newest
FORMAT = "alignguard-state-1"


@dataclass(frozen=True)
class State:
    """What a run needs to continue: tensors by name, and plain JSON values.

    Attributes:
        step: optimizer steps done.
        tensors: factors, optimizer, and where they exist the bank and the best adapter.
        values: losses, metrics, and what else is a plain value.
    """

    step: int
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


def save_state(folder: Path, state: State) -> Path:
    """Write a state and remove all but the two newest.

    States of later steps are removed too: the run went back to before them, or could not read them.

    Args:
        folder: the `state` folder of a run; created if it is missing.
        state: to write.

    Returns:
        The new file, `step_<step>.safetensors`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{state.step:08d}.safetensors"
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
    values = json.dumps({"step": state.step, **state.values})
    for later in [other for other in _newest_first(folder) if other > path]:
        later.unlink()  # before the write: if it fails, the newest state left is one to continue from
    write_atomically(path, save(tensors, metadata={"format": FORMAT, "values": values}))
    for older in _newest_first(folder)[KEPT:]:
        older.unlink()
    return path


def load_newest(folder: Path) -> State | None:
    """Read the newest state that is whole; None if there is none. The log names files that are torn."""
    for path in _newest_first(folder):
        try:
            return _read(path)
        except (SafetensorError, ValueError, KeyError, RecursionError) as error:
            log.warning("%s is not a whole resume state (%s); reading the one before it.", path.name, error)
    return None


def pack(parameters: Mapping[str, nn.Parameter], optimizer: Optimizer) -> dict[str, Tensor]:
    """Name the tensors of the adapter and of its optimizer.

    Args:
        parameters: the factors of the adapter by name, in the order in which the optimizer got them.
        optimizer: an optimizer over exactly these factors, with one parameter group.

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
    """Write packed tensors back into an adapter and its optimizer.

    Args:
        tensors: as `pack` returns them; other names are ignored.
        parameters: the factors of the adapter by name.
        optimizer: an optimizer over exactly these factors.

    Raises:
        ValueError: if the state belongs to an adapter of other modules; nothing is written then.
    """
    saved_names = {key.removeprefix("adapter.") for key in tensors if key.startswith("adapter.")}
    if saved_names != parameters.keys():
        raise ValueError(
            f"the resume state holds {len(saved_names)} LoRA factors, and the adapter has {len(parameters)} "
            "others. Resume with the same model and targets, or choose a new run folder."
        )
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[f"adapter.{name}"])
    index = {name: number for number, name in enumerate(parameters)}  # optimizers number their parameters
    entries: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, entry, name = key.split(".", 2)
            entries.setdefault(index[name], {})[entry] = tensor.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that after a crash either the old or the new content is there, never a part."""
    temporary = path.with_name("writing.tmp")  # a fixed name, so that a killed run's file is overwritten
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)  # a full disk needs the room
        raise
    os.replace(temporary, path)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_*.safetensors"), reverse=True)


def _read(path: Path) -> State:
    if not path.is_file():
        raise ValueError("it is not a file")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise ValueError(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
        values = json.loads(metadata["values"])
        # SafeOpen has keys() but is not iterable
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if not isinstance(values, dict):
        raise ValueError("its values are not a JSON object")
    return State(step=values.pop("step"), tensors=tensors, values=values)
