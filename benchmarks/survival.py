"""Kill every command that writes, at random moments, and compare what it ends with to an unbroken run.

    python dev.py bench survival --count 200     as many kills; a stopped loop continues

Half of the kills come after a random time, the others just before a random operation on a file, because most
of the time nothing is written. A killed command is started again, killed once more, and then left to end.
"""

import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

import dev
from processes_of_tests import forking_context
from tiny_commands import WRITERS, damaged, file_operations, is_unfinished, prepare, start, tree, write_given

for _name in (
    "diffusers",
    "peft",
    "transformers",
    "training.trainer.train_expert",
    "training.making.make_pairs",
):
    __import__(_name)  # once, in the process from which the killed ones are forked

LOG = dev.ROOT / "demo_output" / "survival.jsonl"
KILLS = 200
KILLS_PER_RUN = 2
TIME, FILE = "at a random time", "at a file operation"
ENDED = "left to end"
LOGS = ("rows", "metrics")  # grow row by row, and a resumed run may cut them back to its state


class Unbroken(NamedTuple):
    """A run that nobody killed: its files, its duration in seconds, and its number of file operations."""

    files: Mapping[str, bytes]
    seconds: float
    operations: int


class Work(NamedTuple):
    """Where a command runs: the folder of its inputs, and the folder that it writes."""

    name: str
    given: Path
    new: Path


def measure(kills: int = KILLS, log: Path = LOG) -> dict[str, Any]:
    """Kill commands until `kills` kills are in the log, and count what they cost.

    Args:
        kills: number of kills.
        log: one JSON line per kill and per run that was left to end; delete it to begin anew.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    count = sum(row["kind"] in (TIME, FILE) for row in rows)
    context = forking_context(__name__)
    with tempfile.TemporaryDirectory(prefix="alignguard_survival_") as folder:
        given = write_given(Path(folder) / "given")
        unbroken: dict[str, Unbroken] = {}
        while count < kills:
            chance = random.Random(len(rows))
            name = WRITERS[sum(row["kind"] == ENDED for row in rows) % len(WRITERS)]
            work = Work(name, given, Path(folder) / "new" / name)
            if name not in unbroken:
                unbroken[name] = _unbroken(context, work)
            new_rows = list(_one_life(context, work, unbroken[name], chance))
            with open(log, "a", encoding="utf-8") as file:
                file.writelines(f"{json.dumps(row)}\n" for row in new_rows)
            rows += new_rows
            count += sum(row["kind"] in (TIME, FILE) for row in new_rows)
    return _figures(rows)


def _unbroken(context: Any, work: Work) -> Unbroken:
    prepare(work.name, work.given, work.new)
    process = _started(context, work)
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{work.name} failed with exit code {process.exitcode} although nobody killed it")
    files, (operations, seconds) = tree(work.new), json.loads(_facts_file(work).read_text())
    shutil.rmtree(work.new)
    return Unbroken(files, seconds, operations)


def _started(context: Any, work: Work, *, again: bool = False, die_at: int = 0) -> Any:
    process = context.Process(target=_child, args=(work, again, die_at))
    process.start()
    return process


def _one_life(
    context: Any, work: Work, unbroken: Unbroken, chance: random.Random
) -> Iterator[dict[str, Any]]:
    """Kill a command `KILLS_PER_RUN` times, and then let it end; yield a row for each."""
    prepare(work.name, work.given, work.new)
    inputs, done = _stamps(work.given), set()
    for turn in range(KILLS_PER_RUN):
        kind = chance.choice((TIME, FILE))
        at = chance.randint(1, unbroken.operations) if kind == FILE else 0
        process = _started(context, work, again=turn > 0, die_at=at)
        process.join(chance.uniform(0, unbroken.seconds) if kind == TIME else None)
        process.kill()
        process.join()
        before, done = done, _finished(work, unbroken)
        yield {
            "command": work.name,
            "kind": kind if process.exitcode == -signal.SIGKILL else "ended before the kill",
            "damaged": damaged(work.new),
            "gone": sorted(before - done),
            "inputs_changed": _stamps(work.given) != inputs,
        }
    if tree(work.new) != unbroken.files:
        _started(context, work, again=True).join()
    files = tree(work.new)
    names = files.keys() | unbroken.files.keys()
    yield {
        "command": work.name,
        "kind": ENDED,
        "other_bytes": sorted(name for name in names if files.get(name) != unbroken.files.get(name)),
        "left_over": sum(is_unfinished(path) for path in work.new.rglob("*") if path.is_file()),
        "inputs_changed": _stamps(work.given) != inputs,
    }
    shutil.rmtree(work.new)


def _finished(work: Work, unbroken: Unbroken) -> set[str]:
    """Return the files that already are as an unbroken run leaves them, without logs."""
    return {
        path
        for path, content in tree(work.new).items()
        if unbroken.files.get(path) == content and not Path(path).name.startswith(LOGS)
    }


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def _figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    table = {}
    for name in WRITERS:
        of_name = [row for row in rows if row["command"] == name]
        kinds = Counter(row["kind"] for row in of_name)
        ends = [row for row in of_name if row["kind"] == ENDED]
        table[name] = {
            TIME: kinds[TIME],
            FILE: kinds[FILE],
            "torn files": sum(len(row.get("damaged", ())) for row in of_name),
            "finished files lost": sum(len(row.get("gone", ())) for row in of_name),
            "inputs changed": sum(row["inputs_changed"] for row in of_name),
            "ended with the same bytes": f"{sum(not row['other_bytes'] for row in ends)} of {len(ends)}",
            "temporary files left": sum(row["left_over"] for row in ends),
        }
    return table


# In the process that is killed


def _child(work: Work, again: bool, die_at: int) -> None:
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, "w")
    count, began = itertools.count(1), time.monotonic()

    def before(kind: str, path: str) -> None:
        if kind == "write" and next(count) == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    with file_operations(work.new, before):
        outcome = start(work.name, work.given, work.new, again=again)
    _facts_file(work).write_text(json.dumps([next(count) - 1, time.monotonic() - began]))
    sys.exit(outcome.code if outcome else 0)


def _facts_file(work: Work) -> Path:
    """Return where a process that nobody killed writes how many file operations and seconds it took."""
    return work.new.with_name(f"{work.name}.json")
