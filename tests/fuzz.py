"""Random and damaged files for every reader in `readers.py`, and the check that one is read or refused.

Every input comes from a `random.Random`: Hypothesis plays one for the tests, so that a crash is made small,
and `benchmarks/fuzzing.py` seeds one for its long runs.
"""

import os
import time
import tracemalloc
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from readers import PEFT_KEYS, READERS, Reader, expert_bytes, raised_by_us

SLOWEST_S = 10.0  # of the processor for one input, because a busy machine may take any time
SMALL = 24 * 2**20  # bytes that a reader may take for a tiny file: code and buffers, not the content
TOKENS = [
    *(b"\0", b"\xff", b"{", b"]", b'"', b",", b"\n", b"\xef\xbb\xbf", b"-1", b"1e999", b"NaN", b"9" * 20),
    *(b"null", b"true", b"[]", b"{}", b'"F64"', b'"BF16"', b"\xe2\x80\xa8", b"../", b"\xed\xa0\x80"),
    b"[" * 50,
]
KEY_PARTS = [
    *PEFT_KEYS[0].split("."),
    *("lora_unet_", "lora_down.weight", "alpha", "_", "/", "diff", "0", "9" * 9),
]


def random_input(name: str, seed: bytes, chance: Random) -> bytes:
    """Return an input for a reader: mostly a damaged valid file, else anything, or an expert of any names.

    Args:
        name: one of `READERS`.
        seed: a valid file of that reader.
        chance: what decides everything.
    """
    kind = chance.randrange(8)
    if kind == 0:
        return chance.randbytes(chance.randrange(257))
    if kind < 3 and name == "expert":
        return _named([_key(chance), _key(chance)])
    return _damaged(seed, chance)


def _damaged(seed: bytes, chance: Random) -> bytes:
    """Return a file with a few places overwritten, cut out, doubled or filled with tokens."""
    data = bytearray(seed)
    for _ in range(chance.choice([1, 1, 2, 3, 6])):
        start = chance.randint(0, len(data))
        length = chance.choice([0, 1, 1, 2, 4, 8, 64])
        kind = chance.choice(["overwrite", "replace", "double", "cut"])
        if kind in ("overwrite", "replace"):
            is_token = chance.randrange(2)
            piece = chance.choice(TOKENS) if is_token else chance.randbytes(chance.randrange(9))
            data[start : start + (length if kind == "replace" else len(piece))] = piece
        elif kind == "double":
            data[start:start] = data[start : start + max(length, 16)]
        else:
            del data[start : start + chance.choice([1, 1, 4, 16, len(data)])]
    return bytes(data)


def _key(chance: Random) -> str:
    parts = [
        chance.choice(KEY_PARTS) if chance.randrange(4) else chr(chance.randrange(0x110000))
        for _ in range(chance.randrange(10))
    ]
    return ".".join(parts)


def _named(keys: list[str]) -> bytes:
    if len(set(keys)) < len(keys) or "__metadata__" in keys:
        return b""
    try:
        return expert_bytes(keys)
    except (UnicodeEncodeError, ValueError):  # a name that the format cannot hold
        return b""


class Counts:
    """How many inputs were read, and how many of them were refused."""

    def __init__(self) -> None:
        self.inputs = self.refused = 0


def check(reader: Reader, content: bytes, folder: Path, counts: Counts) -> None:
    """Read one input, and raise if the reader fails otherwise than by its own error."""
    (folder / reader.file).write_bytes(content)
    before, start = _listing(folder.parent), time.process_time()
    counts.inputs += 1
    try:
        reader.read(folder)
    except Exception as error:
        counts.refused += 1
        if not raised_by_us(error):
            raise
    took = time.process_time() - start
    assert took < SLOWEST_S, f"took {took:.1f} s"
    assert _listing(folder.parent) == before, "a reader wrote something"


def _listing(folder: Path | str) -> list[tuple[str, int, int]]:
    """Return the path, size and time of change of every file and folder below a folder."""
    found = []
    for entry in os.scandir(folder):
        facts = entry.stat()
        found.append((entry.path, facts.st_size, facts.st_mtime_ns))
        if entry.is_dir():
            found += _listing(entry.path)
    return sorted(found)


def fuzz(name: str, count: int, folder: Path) -> Counts:
    """Fuzz one reader with the same inputs every time; raise the error of the smallest that crashes it.

    Args:
        name: one of `READERS`.
        count: inputs.
        folder: empty; the attacked files are written to a folder in it.
    """
    reader, counts, inner = READERS[name], Counts(), folder / "in"
    inner.mkdir(parents=True)
    reader.prepare(inner)
    seed = reader.seed()

    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def one(chance: Random) -> None:
        check(reader, random_input(name, seed, chance), inner, counts)

    one()
    return counts


def peak_bytes(reader: Reader, content: bytes, folder: Path) -> int:
    """Return the largest amount of memory that Python held while a file was read, or refused."""
    (folder / reader.file).write_bytes(content)
    tracemalloc.start()
    try:
        reader.read(folder)
    except ValueError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak
