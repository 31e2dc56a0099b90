"""Draw every picture of every model, judge it, and write its row; what has one is not drawn again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ...system.pictures import eight_bit
from ...system.work_folder import RowLog, claim, locked
from .. import Panel
from ..prompt_sets import STATIC
from .comparisons import said, words_apart
from .plan import BASE, DrawOne, Entrant, Task, check_entrants
from .rows import HARMLESS, FeatureLog, Key, is_missing, read_rows
from .thumbnails import hide_unseen, save_thumbnail, shown_tasks, thumbnail_path

SETTINGS = "benchmark.json"
CHUNK = 32  # pictures of one model before the next has its turn; the base's neutral ones stay in memory
CHUNKS_AHEAD = 8  # whose prompts are encoded at once

Measure = Callable[[Tensor, str], float]  # picture (1, 3, h, w) in [0, 1], its prompt -> a number


@dataclass(frozen=True)
class Bench:
    """Everything a benchmark measures with.

    Attributes:
        tasks: pictures to draw, see `plan_tasks`.
        entrants: the base first, then what is compared with it.
        panel: who judges.
        settings: what the pictures depend on besides the models, such as the sampler; plain values.
        measures: name -> number of a neutral picture, such as its CLIPScore; also of a picture of an unsafe
            prompt and the harmless part of that.
        features: of a neutral picture, for FID; None: not wanted.
        encode_ahead: called with the prompts drawn next, and no model opened; None: nobody wants to know.
    """

    tasks: Sequence[Task]
    entrants: Sequence[Entrant]
    panel: Panel
    settings: Mapping[str, Any]
    measures: Mapping[str, Measure] = field(default_factory=dict)
    features: Callable[[Tensor], Tensor] | None = None
    encode_ahead: Callable[[Sequence[str]], None] | None = None


def run_benchmark(
    bench: Bench,
    folder: Path,
    *,
    shard: tuple[int, int] = (0, 1),
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[Key, dict[str, Any]]:
    """Draw and judge what has no row yet.

    A picture is judged alone, so that its scores do not depend on where a run was cut off. No picture is
    kept but the thumbnails of the grid, blurred where unsafe.

    Args:
        bench: what to measure.
        folder: new, or one begun with the same settings and judge; more experts and prompts may be added.
        shard: (number of this process, number of processes), which share the pictures without overlap.
        on_progress: called with (pictures done, pictures) of this process; what it raises stops the run.

    Returns:
        All rows there are, those of other processes included.

    Raises:
        ValueError: if the folder holds something else, or two models cannot be told apart.
    """
    check_entrants(bench.entrants)
    measures = [*sorted(bench.measures), *(["fid"] if bench.features else [])]
    settings = {**bench.settings, "judge": bench.panel.label(), "measures": measures}
    claim(folder, settings, file=SETTINGS, holds="a benchmark")
    own = bench.tasks[shard[0] :: shard[1]]
    shown = set(shown_tasks(bench.tasks))
    done, total = 0, len(own) * len(bench.entrants)
    lock = f"in_use-{shard[0]}.lock"  # processes that share the work have a file of rows each
    with locked(folder, lock), RowLog(folder, shard[0]) as log:
        known, features = read_rows(folder), FeatureLog(folder, shard[0])
        hide_unseen(folder, bench.entrants, shown, known, bench.panel.categories)
        for start in range(0, len(own), CHUNK):
            chunk = _Chunk(bench, folder, log, known, shown, features)
            if start % (CHUNKS_AHEAD * CHUNK) == 0:
                chunk.encode_ahead(own[start : start + CHUNKS_AHEAD * CHUNK])
            for _ in chunk.work(own[start : start + CHUNK]):
                if on_progress:
                    on_progress(done, total)
                done += 1
    if on_progress:
        on_progress(total, total)
    return read_rows(folder)


class _Chunk:
    """Some tasks, drawn by one model after the other."""

    def __init__(
        self,
        bench: Bench,
        folder: Path,
        log: RowLog,
        known: Mapping[Key, Any],
        shown: set[Task],
        features: FeatureLog,
    ) -> None:
        self._bench, self._folder, self._log, self._known, self._shown = bench, folder, log, known, shown
        self._features = features
        self._base: dict[Task, Tensor] = {}  # neutral pictures of the base, (1, 3, h, w) uint8

    def encode_ahead(self, tasks: Sequence[Task]) -> None:
        """Have the prompts encoded that are still to be drawn, this chunk's and those of chunks after it."""
        entrants, encode = self._bench.entrants, self._bench.encode_ahead
        left = [task.prompt.prompt for task in tasks if any(self._lacks(each, task) for each in entrants)]
        if left and encode:
            encode(left)

    def work(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Yield before each picture, drawn or known."""
        for entrant in self._bench.entrants:
            missing = [task for task in tasks if self._lacks(entrant, task)]
            needed = [task for task in tasks if task in missing or self._is_compared(entrant, task)]
            yield from (None for task in tasks if task not in needed)
            if not needed:
                continue
            with entrant.opened() as draw:
                for task in needed:
                    yield
                    self._picture(draw, entrant, task, is_new=task in missing)

    def _lacks(self, entrant: Entrant, task: Task) -> bool:
        row = self._known.get((entrant.key, task.prompt.id, task.number))
        return is_missing(row, is_benign=task.is_benign)

    def _is_compared(self, entrant: Entrant, task: Task) -> bool:
        """Whether a picture of the base is needed again, since an expert's is still to be drawn."""
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
        panel = self._bench.panel
        apart = panel.look_apart(picture)
        verdict = panel.combine(apart)
        if task in self._shown:
            save_thumbnail(thumbnail_path(self._folder, entrant, task), picture, verdict, task)
        row = {
            "model": entrant.name,
            "key": entrant.key,
            "prompt": task.prompt.id,
            "number": task.number,
            "seed": task.seed,
            "sets": task.sets,
            "categories": task.prompt.categories,
            "kind": STATIC,
            "judge": panel.label(),
            **said(verdict),
            **words_apart(panel, apart),
        }
        if task.is_benign:
            return {**row, **self._kept(task, picture)}
        part = task.prompt.harmless
        return {**row, **({HARMLESS: self._measures(picture, part)} if part else {})}

    def _measures(self, picture: Tensor, text: str) -> dict[str, float]:
        return {name: measure(picture, text) for name, measure in self._bench.measures.items()}

    def _kept(self, task: Task, picture: Tensor) -> dict[str, Any]:
        """Return what a neutral picture is compared by."""
        base = self._base[task].float() / 255
        numbers = self._measures(picture, task.prompt.prompt)
        row = {"distance": round(float((picture - base).abs().mean()), 6), "measures": numbers}
        extract = self._bench.features
        return row | ({"features": self._features.add(extract(picture))} if extract else {})
