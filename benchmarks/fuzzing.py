"""Give every reader random and damaged files: each must be read, or refused by an error of the reader itself.

python dev.py bench fuzzing --count 200000     as many for each reader; a stopped run continues
"""

import faulthandler
import json
import logging
import tempfile
import time
import warnings
from pathlib import Path
from random import Random
from typing import Any

import dev
from fuzz import Counts, check, random_input
from readers import READERS

LOG = dev.ROOT / "demo_output" / "fuzzing.jsonl"
COUNT = 200_000
CHUNK = 1_000  # inputs of one seed, which is the number of the chunk
MEMORY = Path("/dev/shm")  # where the system has it: a disk would take ten times as long as the readers
LONGEST_S = 3600  # of a chunk; a reader that hangs then ends the run with its traceback


def measure(count: int = COUNT, log: Path = LOG) -> dict[str, Any]:
    """Fuzz every reader until the log holds `count` inputs of each, and count what they got.

    Args:
        count: inputs for each reader.
        log: one JSON line per chunk, with its seed and its crashes; delete it to begin anew.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    known = {(row["reader"], row["seed"]) for row in rows}
    for seed in range(-(-count // CHUNK)):  # all readers get the same share, however early the run is stopped
        for name in READERS:
            if (name, seed) in known:
                continue
            rows.append(_chunk(name, seed))
            with open(log, "a", encoding="utf-8") as file:
                file.write(f"{json.dumps(rows[-1])}\n")
    return _figures(rows)


def _chunk(name: str, seed: int) -> dict[str, Any]:
    reader, chance, counts, crashes = READERS[name], Random(seed), Counts(), []
    start, valid = time.monotonic(), reader.seed()
    logging.disable(logging.WARNING)  # what a reader says about a damaged file
    faulthandler.dump_traceback_later(LONGEST_S, exit=True)
    try:
        place = MEMORY if MEMORY.is_dir() else None
        with tempfile.TemporaryDirectory(dir=place) as outer, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            folder = Path(outer) / "in"
            folder.mkdir()
            reader.prepare(folder)
            for _ in range(CHUNK):
                content = random_input(name, valid, chance)
                try:
                    check(reader, content, folder, counts)
                except Exception as error:  # whatever it is, it belongs into the list
                    crashes.append({"error": f"{type(error).__name__}: {error}", "input": content.hex()})
    finally:
        faulthandler.cancel_dump_traceback_later()
        logging.disable(logging.NOTSET)
    return {
        "reader": name,
        "seed": seed,
        "inputs": counts.inputs,
        "refused": counts.refused - len(crashes),
        "crashes": crashes,
        "seconds": round(time.monotonic() - start, 2),
    }


def _figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    table = {}
    for name in READERS:
        of_name = [row for row in rows if row["reader"] == name]
        total = {key: sum(row[key] for row in of_name) for key in ("inputs", "refused", "seconds")}
        crashes = sum(len(row["crashes"]) for row in of_name)
        read = total["inputs"] - total["refused"] - crashes
        table[name] = {
            "inputs": total["inputs"],
            "read": read,
            "refused": total["refused"],
            "crashes": crashes,
            "ms each": round(1000 * total["seconds"] / max(total["inputs"], 1), 2),
        }
    return table
