"""From cached data to an expert on disk: the one path that the node and the command line share."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import torch
from torch import nn

from ..config import TrainConfig
from ..experts.expert import SafetyExpert, load_expert, save_expert
from ..models.network import input_like
from ..models.noise import Schedule
from ..pairs.training_data import TrainingData
from ..rules.categories import normalize_categories, normalize_category
from ..system.finished_runs import FinishedRuns
from ..system.processes import ALONE, Processes
from ..system.tensors import refuse_existing
from ..system.work_folder import try_new_file
from .identity import ending_facts
from .loop import train
from .plan import free_bytes
from .result import TrainResult, result_values, reused_result, training_metadata
from .run import Callbacks, named_precision
from .run_folder import EXPERT, Storage, warned_of_a_full_disk

log = logging.getLogger(__name__)

FINISHED = "finished"  # in the run folder: records of its finished runs
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


@dataclass(frozen=True)
class Subject:
    """What an expert is about.

    Attributes:
        category: of the pairs, in any accepted spelling; several are separated by commas.
        family: line of the base model, `sd15` and so on.
        base_hash: of the base model's weights, for the file's metadata and to recognise the run.
    """

    category: str
    family: str
    base_hash: str

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories in their normal spelling; a blank one raises a ValueError."""
        return normalize_categories(self.category) or (normalize_category(self.category),)


@dataclass(frozen=True)
class Destination:
    """Where an expert and its run are kept.

    Attributes:
        out: the new `.safetensors` file. If the name is taken while training, a number is added.
        run_dir: folder of the resume state and of `metrics.jsonl`, and of a copy of the expert; None:
            nothing but the expert is written.
        resume: continue from the newest state in `run_dir`, if there is one.
        reuse: give the expert of a finished run in `run_dir` whose inputs were equal, and train nothing.
    """

    out: Path
    run_dir: Path | None = None
    resume: bool = False
    reuse: bool = False


def train_expert(
    unet: nn.Module,
    data: TrainingData,
    schedule: Schedule,
    config: TrainConfig,
    *,
    subject: Subject,
    destination: Destination,
    callbacks: Callbacks | None = None,
    processes: Processes = ALONE,
) -> tuple[SafetyExpert, TrainResult]:
    """Train an expert and write it with all metadata that is needed to identify and repeat it.

    When the run ends early after at least one step, the expert so far is written to
    `<stem>_partial.safetensors` beside `out`, before the exception is passed on. With a run folder, the same
    bytes are `expert.safetensors` there. If an earlier run may be reused, its expert is returned as it is.

    Args:
        unet: frozen UNet or `Network`, on the device to train on; it comes back as it was.
        data: cached latents and embeddings of the pairs.
        schedule: of the family.
        config: options of the run.
        subject: what the expert is about.
        destination: where the expert and its run are kept.
        callbacks: how the caller follows and stops the run; None: not at all.
        processes: the processes that train this expert together; only the first writes.

    Returns:
        The expert as read from its file, named after it, and the figures of the run. In all processes but
        the first the expert is not in a file.

    Raises:
        FileExistsError: if `out` exists; nothing is trained then.
        OSError: if the expert cannot be written; its file in the run folder, or the state, is left then.
        ValueError: if the category is blank, the name does not end in `.safetensors`, or `train` raises it.
        RuntimeError: if training changed nothing, or `train` raises it.
    """
    callbacks = callbacks or Callbacks()
    file = _ExpertFile(replace(destination, out=Path(destination.out)), subject, data, schedule)
    categories = subject.categories
    key = file.key(config, input_like(unet).device)
    if earlier := file.earlier(key):
        return earlier
    _check_out(file.destination.out, processes)
    result = train(
        unet,
        data,
        schedule,
        config,
        storage=Storage(destination.run_dir, destination.resume, subject.base_hash),
        callbacks=replace(callbacks, on_stop=file.writing_partial(callbacks.on_stop)),
        free_bytes=free_bytes(input_like(unet).device),
        processes=processes,
    )
    _refuse_unchanged(result)
    if processes.is_first:
        return file.write(result, key), result
    return SafetyExpert(result.layers, categories, subject.family, {}, file.destination.out.name), result


@dataclass(frozen=True)
class _ExpertFile:
    """The file of an expert, and what its metadata says beside the figures of the run."""

    destination: Destination
    subject: Subject
    data: TrainingData
    schedule: Schedule

    def key(self, config: TrainConfig, device: torch.device) -> str:
        """Return the name of the run by everything that decides its expert; empty if none may be reused."""
        if self._finished is None:
            return ""
        named = replace(config, precision=named_precision(config.precision, device))
        facts = ending_facts(self.data, self.schedule, named, self.subject.base_hash)
        return self._finished.key(**facts, categories=self.subject.categories, family=self.subject.family)

    def earlier(self, key: str) -> tuple[SafetyExpert, TrainResult] | None:
        """Return what a finished run of the same key has trained, if its file is beside this one."""
        run = self._finished.find(key) if self._finished else None
        if run is None or run.file.parent != Path(os.path.abspath(self.destination.out)).parent:
            return None
        expert = load_expert(run.file)
        return expert, reused_result(run.values, expert.layers)

    @property
    def _finished(self) -> FinishedRuns | None:
        run_dir = self.destination.run_dir
        return FinishedRuns(run_dir / FINISHED) if self.destination.reuse and run_dir else None

    def write(self, result: TrainResult, key: str = "") -> SafetyExpert:
        """Write the expert, record the run under its key, and return the expert as read from the file."""
        out, run_dir = self.destination.out, self.destination.run_dir
        try:
            path = self._write_as(out, result)
            if self._finished:
                self._finished.add(key, path, result_values(result))
            return load_expert(path)
        except OSError as error:
            hint = f" The run can be resumed from {run_dir} without training again." if run_dir else ""
            raise _not_written(error, out, hint) from error

    def writing_partial(self, then: Callable[[TrainResult], None]) -> Callable[[TrainResult], None]:
        """Return a function that writes what a run had learned when it stopped, and then calls another."""

        def on_stop(result: TrainResult) -> None:
            path = self._write_as(_partial(self.destination.out), result)
            log.info("stopped after %s steps; saved the expert so far as %s", result.steps_done, path.name)
            then(result)

        return on_stop

    def _write_as(self, path: Path, result: TrainResult) -> Path:
        subject, run_dir = self.subject, self.destination.run_dir
        metadata = training_metadata(
            result,
            self.schedule,
            title=self.destination.out.stem,
            base_hash=subject.base_hash,
            pairs_hash=self.data.pairs_hash,
            resolution=self.data.resolution,
        )
        expert = SafetyExpert(result.layers, subject.categories, subject.family, metadata, path.name)
        if run_dir:
            with warned_of_a_full_disk(EXPERT):
                _overwrite(expert, run_dir / EXPERT)
        return _save_numbered(expert, path)


def expert_name(category: str) -> str:
    """Return the file name of an expert, without its ending: `alignguard_self_harm`.

    Raises:
        ValueError: if the category is blank.
    """
    names = normalize_categories(category) or (normalize_category(category),)
    return "_".join(["alignguard", *(re.sub(r"\W+", "_", name).strip("_") for name in names)])


def _check_out(out: Path, processes: Processes) -> None:
    """Refuse before hours of training what would keep the file from being written after them."""
    if out.suffix != ".safetensors":
        raise ValueError(f"an expert's file name must end in .safetensors, got {out.name!r}.")
    refuse_existing(out)
    if not processes.is_first:
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for path in (out, _partial(out)):
            if not os.path.lexists(path):  # an earlier run may have left its partial file
                try_new_file(path)
    except OSError as error:
        raise _not_written(error, out, " Nothing was trained yet.") from error


def _partial(out: Path) -> Path:
    return out.with_name(f"{out.stem}_partial.safetensors")


def _not_written(error: OSError, out: Path, hint: str) -> OSError:
    """Return an error of the same kind that says what to do."""
    advice = "Make the folder writable, or choose another."
    if error.errno in _NO_ROOM:
        advice = "Free some space."
    elif error.errno == errno.ENAMETOOLONG:
        advice = f"Choose a shorter name; {_partial(out).name} must fit too."
    reason = f"{out.name} cannot be written to {out.parent} ({error.strerror or error}). {advice}{hint}"
    return OSError(error.errno, reason)  # Python turns it into the subclass for this errno


def _refuse_unchanged(result: TrainResult) -> None:
    if not any(bool(layer.up.count_nonzero()) for layer in result.layers.values()):
        raise RuntimeError(
            f"training changed nothing in {result.steps_done} steps, so no expert is written. "
            "Raise learning_rate, or lower beta."
        )


def _overwrite(expert: SafetyExpert, path: Path) -> None:
    """Replace the expert of a shorter run in the run folder atomically."""
    temporary = path.with_stem("writing")
    temporary.unlink(missing_ok=True)  # a killed run may have left it
    os.replace(save_expert(expert, temporary), path)


def _save_numbered(expert: SafetyExpert, path: Path) -> Path:
    """Save under the name, or under the name with the first free number: a finished run is never lost."""
    for number in count(1):
        try:
            return save_expert(expert, path if number == 1 else path.with_stem(f"{path.stem}_{number}"))
        except FileExistsError:
            log.info("%s is taken; trying the next number", path.name)
    raise AssertionError("count never ends")
