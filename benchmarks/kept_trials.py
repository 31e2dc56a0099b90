"""Trials whose results outlive the run: each is written down as it ends, so that a killed run goes on."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from workers import run_all, run_here


def run_kept(
    work: Callable[..., Any], calls: Sequence[tuple], file: Path, *, here: bool = False
) -> Iterator[tuple[tuple, Any]]:
    """Yield (arguments, result) of each call: those of earlier runs first, then each as it ends.

    Args:
        work: as `run_all` takes it; its result is JSON.
        calls: arguments that are JSON too.
        file: of JSON lines; named after the state of the code, so that another state begins anew.
        here: in this process, one after the other; else on all cores.
    """
    kept = _read(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    yield from ((call, kept[call]) for call in calls if call in kept)
    run = run_here if here else run_all
    with file.open("a", encoding="utf-8") as journal:
        for call, result in run(work, [call for call in calls if call not in kept]):
            journal.write(json.dumps({"call": call, "result": result}) + "\n")
            journal.flush()
            yield call, result


def _read(file: Path) -> dict[tuple, Any]:
    if not file.exists():
        return {}
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):  # a kill tore it
        file.write_text("".join(lines[:-1]), encoding="utf-8")
        lines.pop()
    rows = [json.loads(line) for line in lines]
    return {tuple(row["call"]): row["result"] for row in rows}
