"""Run a benchmark: draw every missing picture with every model, judge it, and write its row."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ...system.picture_looks import look_of
from ...system.pictures import eight_bit
from ...system.tensors import check_finite
from ...system.work_folder import RowLog, claim, locked
from .. import Panel, Verdict, scan
from ..prompt_sets import STATIC
from ..scopes import FRAMES
from .features import FeatureLog
from .measures import Measures
from .plan import BASE, DrawOne, Entrant, Key, Task, check_entrants
from .rows import HARMLESS, LOOK, is_missing, read_rows, verdict_facts, verdicts_by_judge
from .thumbnails import hide_unseen, save_thumbnail, shown_tasks

SETTINGS = "benchmark.json"
CHUNK = 32  # tasks per model before the next model's turn; the base's neutral pictures stay in memory
_DAMAGED_MEASURE = "The model of this measure is damaged; use another one, or leave the measure out."
CHUNKS_AHEAD = 8  # chunks whose prompts are encoded together


@dataclass(frozen=True)
class Bench:
    """What a benchmark measures, and with what.

    Attributes:
        tasks: pictures to draw, see `plan_tasks`.
        entrants: the base, then the models compared with it.
        panel: the judges.
        settings: everything besides the models that the pictures depend on, such as the sampler, and the
            hashes of the measures' models; plain values.
        measures: further measures of pictures and prompts.
        encode_ahead: called with the prompts that are drawn next, while no model is open; None: not needed.
        scopes: what of a picture the judges look at, one of `OF_PICTURES`.
    """

    tasks: Sequence[Task]
    entrants: Sequence[Entrant]
    panel: Panel
    settings: Mapping[str, Any]
    measures: Measures = field(default_factory=Measures)
    encode_ahead: Callable[[Sequence[str]], None] | None = None
    scopes: str = FRAMES

    def judged_by(self) -> str:
        """Return the judges and what they look at, which must stand beside every number."""
        label = self.panel.label()
        return label if self.scopes == FRAMES else f"{label}, scopes {self.scopes}"


def run_benchmark(
    bench: Bench,
    folder: Path,
    *,
    shard: tuple[int, int] = (0, 1),
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[Key, dict[str, Any]]:
    """Draw and judge every picture that has no row yet.

    Each picture is judged alone, so that its scores do not depend on where a run was interrupted. Only the
    thumbnails of the grid are stored, blurred where unsafe.

    Args:
        bench: what to measure.
        folder: a new folder, or one begun with the same settings and judges; experts and prompts may be
            added.
        shard: (number of this process, number of processes); processes share the pictures without overlap.
        on_progress: called with (pictures done, pictures) of this process; an exception stops the run.

    Returns:
        All rows in the folder, including those of other processes.

    Raises:
        ValueError: if the folder holds something else, or two models share a name or key.
    """
    check_entrants(bench.entrants)
    measures = bench.measures
    names = [*sorted(measures.of_pictures), *(["fid"] if measures.features else [])]
    settings = {**bench.settings, "judge": bench.judged_by(), "measures": names}
    claim(folder, settings, file=SETTINGS, holds="a benchmark")
    process, num_processes = shard
    tasks = bench.tasks[process::num_processes]
    done, total = 0, len(tasks) * len(bench.entrants)
    # processes that share the work have one file of rows each, and so one lock each
    with locked(folder, f"in_use-{process}.lock"), RowLog(folder, process) as log:
        worker = _Worker(bench, folder, log, FeatureLog(folder, process))
        for start in range(0, len(tasks), CHUNK):
            if start % (CHUNKS_AHEAD * CHUNK) == 0:
                worker.encode_ahead(tasks[start : start + CHUNKS_AHEAD * CHUNK])
            for _ in worker.work(tasks[start : start + CHUNK]):
                if on_progress:
                    on_progress(done, total)
                done += 1
    if on_progress:
        on_progress(total, total)
    return read_rows(folder)


class _Worker:
    """Draws and judges the missing pictures of one process, chunk by chunk."""

    def __init__(self, bench: Bench, folder: Path, log: RowLog, features: FeatureLog) -> None:
        self._bench, self._folder, self._log, self._features = bench, folder, log, features
        self._rows = read_rows(folder)  # of earlier runs
        self._shown = set(shown_tasks(bench.tasks))
        self._base: dict[Task, Tensor] = {}  # neutral pictures of the base, (1, 3, h, w) uint8
        hide_unseen(folder, bench.entrants, self._shown, self._rows, bench.panel.categories)

    def encode_ahead(self, tasks: Sequence[Task]) -> None:
        """Encode the prompts of tasks that some model must still draw."""
        entrants, encode = self._bench.entrants, self._bench.encode_ahead
        missing = [task for task in tasks if any(self._lacks(entrant, task) for entrant in entrants)]
        if missing and encode:
            encode([task.prompt.prompt for task in missing])

    def work(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Draw a chunk, one model after the other; yield before each picture, drawn or not."""
        self._base.clear()
        for entrant in self._bench.entrants:
            missing = {task for task in tasks if self._lacks(entrant, task)}
            needed = [task for task in tasks if task in missing or self._is_reference(entrant, task)]
            yield from (None for _ in range(len(tasks) - len(needed)))
            if not needed:
                continue
            with entrant.opened() as draw:
                for task in needed:
                    yield
                    self._picture(draw, entrant, task, is_new=task in missing)

    def _lacks(self, entrant: Entrant, task: Task) -> bool:
        return is_missing(self._rows.get(task.row_key(entrant.key)), is_benign=task.is_benign)

    def _is_reference(self, entrant: Entrant, task: Task) -> bool:
        """Return whether the base's picture is needed again because an expert's is still missing."""
        others = self._bench.entrants[1:]
        return entrant.key == BASE and task.is_benign and any(self._lacks(other, task) for other in others)

    def _picture(self, draw: DrawOne, entrant: Entrant, task: Task, *, is_new: bool) -> None:
        start = time.perf_counter()
        picture = eight_bit(draw(task.prompt.prompt, seed=task.seed))
        seconds = time.perf_counter() - start
        if entrant.key == BASE and task.is_benign:
            self._base[task] = (picture * 255).round().byte()
        if is_new:
            row = self._row(entrant, task, picture)
            self._log.add({**row, "seconds": round(seconds, 4)})

    def _row(self, entrant: Entrant, task: Task, picture: Tensor) -> dict[str, Any]:
        verdict, by_judge = self._look(picture)
        if task in self._shown:
            save_thumbnail(self._folder, entrant, task, picture, verdict)
        row = {
            "model": entrant.name,
            "key": entrant.key,
            "prompt": task.prompt.id,
            "number": task.number,
            "seed": task.seed,
            "sets": task.sets,
            "categories": task.prompt.categories,
            "kind": STATIC,
            "judge": self._bench.judged_by(),
            LOOK: look_of(picture),
            **verdict_facts(verdict),
            **verdicts_by_judge(self._bench.panel, by_judge),
        }
        if task.is_benign:
            return {**row, **self._against_base(entrant, task, picture)}
        part = task.prompt.harmless
        return {**row, **({HARMLESS: self._measured(entrant, task, picture, part)} if part else {})}

    def _look(self, picture: Tensor) -> tuple[Verdict, list[Verdict]]:
        """Return the verdict of the panel on a picture, and that of each judge, at the same scopes."""
        panel, scopes = self._bench.panel, self._bench.scopes
        if scopes == FRAMES:
            by_judge = panel.look_apart(picture)
            return panel.combine(by_judge), by_judge
        by_judge = [scan(Panel((judge,)), picture, scopes).verdict for judge in panel.judges]
        alone = len(by_judge) == 1
        return by_judge[0] if alone else scan(panel, picture, scopes).verdict, by_judge

    def _measured(self, entrant: Entrant, task: Task, picture: Tensor, text: str) -> dict[str, float]:
        measures = self._bench.measures.of_pictures
        values = {name: measure(picture, text) for name, measure in measures.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise ValueError(f"{name} of {_drawn(entrant, task)} is {value}. {_DAMAGED_MEASURE}")
        return values

    def _against_base(self, entrant: Entrant, task: Task, picture: Tensor) -> dict[str, Any]:
        """Return the fields that compare a neutral picture with the base's."""
        base = self._base[task].float() / 255
        measured = self._measured(entrant, task, picture, task.prompt.prompt)
        row = {"distance": round(float((picture - base).abs().mean()), 6), "measures": measured}
        extract = self._bench.measures.features
        if extract is None:
            return row
        features = extract(picture)
        check_finite(features, f"the features for FID of {_drawn(entrant, task)}", _DAMAGED_MEASURE)
        return row | {"features": self._features.add(features)}


def _drawn(entrant: Entrant, task: Task) -> str:
    """Return the name of a picture in errors, without its prompt."""
    return f"picture {task.number + 1} of prompt {task.prompt.id!r} by {entrant.name}"
