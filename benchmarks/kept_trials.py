"""Trials that write each result to a file when it is ready, so that a killed run continues."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from workers import run_all, run_here


def run_kept(
    work: Callable[..., Any], calls: Sequence[tuple], file: Path, *, here: bool = False
) -> Iterator[tuple[tuple, Any]]:
    """Yield (arguments, result) of each call: first those of earlier runs, then each new one when it ends.

    Args:
        work: function as in `run_all`; its result can be written as JSON.
        calls: positional arguments of each call, which can be written as JSON.
        file: JSON lines of the results; its name holds a hash of the code, so changed code starts anew.
        here: run in this process, one call after the other; otherwise run on all cores.
    """
    results = _read(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    yield from ((call, results[call]) for call in calls if call in results)
    run = run_here if here else run_all
    with file.open("a", encoding="utf-8") as journal:
        for call, result in run(work, [call for call in calls if call not in results]):
            journal.write(json.dumps({"call": call, "result": result}) + "\n")
            journal.flush()
            yield call, result


def all_kept(
    work: Callable[..., Any], calls: Sequence[tuple], file: Path, shown: Callable[[Any], Any]
) -> dict[tuple, Any]:
    """Return call -> result of `run_kept` on all cores, and show each result when it is ready.

    Args:
        work: as in `run_kept`.
        calls: likewise.
        file: likewise.
        shown: takes a result and returns what is shown of it.
    """
    results: dict[tuple, Any] = {}
    for call, result in tqdm(run_kept(work, calls, file), total=len(calls), desc="trials", file=sys.stdout):
        results[call] = result
        tqdm.write(f"{call}: {shown(result)}")
    return results


def _read(file: Path) -> dict[tuple, Any]:
    if not file.exists():
        return {}
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):  # written in part when the run was killed
        file.write_text("".join(lines[:-1]), encoding="utf-8")
        lines.pop()
    rows = [json.loads(line) for line in lines]
    return {tuple(row["call"]): row["result"] for row in rows}
