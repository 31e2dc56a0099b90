"""From cached data to an expert on disk: the one path that the node and the command line share."""

from __future__ import annotations

import errno
import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import NamedTuple

from torch import nn

from ..config import TrainConfig
from ..experts.expert import SafetyExpert, load_expert, save_expert
from ..models.noise import NoiseSchedule
from ..pairs.training_data import TrainingData
from ..rules.categories import normalize_categories, normalize_category
from ..system.processes import ALONE, Processes
from ..system.tensors import refuse_existing
from .loop import train
from .memory import free_bytes
from .plan import Plan
from .result import TrainResult, training_metadata
from .run_folder import warned_of_a_full_disk
from .state import EXPERT

log = logging.getLogger(__name__)

_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


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
    on_progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    check_cancel: Callable[[], None] | None = None,
    processes: Processes = ALONE,
) -> tuple[SafetyExpert, TrainResult]:
    """Train an expert and write it with everything needed to know and repeat it.

    When the run ends early after at least one step, what there is goes to `<stem>_partial.safetensors`
    beside `out` before the exception is passed on. With a run folder, the same bytes are `expert.safetensors`
    there.

    Args:
        unet: frozen UNet, see `train`.
        data: cached latents and embeddings of the pairs.
        schedule: of the family.
        config: options of the run.
        category: of the pairs, in any accepted spelling; several are separated by commas.
        family: base model line, `sd15` and so on.
        base_hash: of the base model's weights, for the file's metadata and to know the run again.
        out: the new `.safetensors` file. Should the name be taken while training, a number is added.
        run_dir: see `train`.
        resume: see `train`.
        on_progress: see `train`.
        on_plan: see `train`.
        check_cancel: see `train`.
        processes: see `train`.

    Returns:
        The expert as it can be read from the file, named after it, and the figures of the run. In all but
        the first process the expert is not in a file.

    Raises:
        FileExistsError: if `out` exists, before anything is trained.
        OSError: if the expert cannot be written; the file in the run folder or its state is left then.
        ValueError: if the category is blank, the name does not end in `.safetensors`, or as in `train`.
        RuntimeError: if training changed nothing, or as in `train`.
    """
    categories = normalize_categories(category) or (normalize_category(category),)  # a blank one is refused
    file = _ExpertFile(Path(out), run_dir, categories, family, data, schedule, base_hash)
    _check_out(file.out, processes)
    free = free_bytes(unet.conv_in.weight.device)
    result = train(
        unet, data, schedule, config, on_progress=on_progress, on_plan=on_plan, on_stop=file.keep_partial,
        check_cancel=check_cancel, run_dir=run_dir, base_hash=base_hash, resume=resume, free_bytes=free,
        processes=processes,
    )  # fmt: skip
    _check_learned(result)
    return file.finish(result) if processes.is_first else file.unwritten(result), result


class _ExpertFile(NamedTuple):
    """Where the expert of a run goes, and what its file says of the run beside the figures."""

    out: Path
    run_dir: Path | None
    categories: tuple[str, ...]
    family: str
    data: TrainingData
    schedule: NoiseSchedule
    base_hash: str

    def finish(self, result: TrainResult) -> SafetyExpert:
        """Write the expert, and return it as the file has it."""
        try:
            return load_expert(self._write(result, self.out))
        except OSError as error:
            resumable = f" The run can be resumed from {self.run_dir} without training again."
            raise _not_written(error, self.out, resumable if self.run_dir else "") from error

    def keep_partial(self, result: TrainResult) -> None:
        """Write what a run had learned when it stopped."""
        path = self._write(result, self.out.with_name(f"{self.out.stem}_partial.safetensors"))
        log.info("stopped after %s steps; kept as %s", result.steps_done, path.name)

    def unwritten(self, result: TrainResult) -> SafetyExpert:
        """Return the expert of a process that writes none."""
        return SafetyExpert(result.layers, self.categories, self.family, {}, self.out.name)

    def _write(self, result: TrainResult, path: Path) -> Path:
        metadata = training_metadata(
            result,
            self.schedule,
            title=self.out.stem,
            base_hash=self.base_hash,
            pairs_hash=self.data.pairs_hash,
            resolution=self.data.resolution,
        )
        expert = SafetyExpert(result.layers, self.categories, self.family, metadata, path.name)
        if self.run_dir:
            with warned_of_a_full_disk(EXPERT):
                _replace(expert, self.run_dir / EXPERT)
        return _save_numbered(expert, path)


def expert_name(category: str) -> str:
    """Return the file name, without ending, of an expert: `alignguard_self_harm`.

    Raises:
        ValueError: if the category is blank.
    """
    names = normalize_categories(category) or (normalize_category(category),)
    return "_".join(["alignguard", *(re.sub(r"\W+", "_", name).strip("_") for name in names)])


def _check_out(out: Path, processes: Processes) -> None:
    """Find out before hours of training what would stop the file from being written after them."""
    if out.suffix != ".safetensors":
        raise ValueError(f"an expert's file name must end in .safetensors, got {out.name!r}.")
    refuse_existing(out)
    if not processes.is_first:
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise _not_written(error, out, " Nothing was trained yet.") from error


def _not_written(error: OSError, out: Path, kept: str) -> OSError:
    """Return the error that a person can act on, of the same kind."""
    advice = "Make room." if error.errno in _NO_ROOM else "Make the folder writable, or choose another."
    reason = f"{out.name} cannot be written to {out.parent} ({error.strerror or error}). {advice}{kept}"
    return OSError(error.errno, reason)  # Python makes a PermissionError of it where it was one


def _check_learned(result: TrainResult) -> None:
    if not any(bool(layer.up.count_nonzero()) for layer in result.layers.values()):
        raise RuntimeError(
            f"training changed nothing in {result.steps_done} steps, so no expert is written. "
            "Raise learning_rate, or lower beta."
        )


def _replace(expert: SafetyExpert, path: Path) -> None:
    """Write the expert of the run folder over that of a shorter run; one of the two is there, whole."""
    path.with_stem("writing").unlink(missing_ok=True)  # what a killed run left
    os.replace(save_expert(expert, path.with_stem("writing")), path)


def _save_numbered(expert: SafetyExpert, path: Path) -> Path:
    """Save under the name, or the name with the first free number: a finished run is never lost."""
    for number in count(1):
        try:
            return save_expert(expert, path if number == 1 else path.with_stem(f"{path.stem}_{number}"))
        except FileExistsError:
            log.info("%s is taken; trying the next number", path.name)
    raise AssertionError("count never ends")
