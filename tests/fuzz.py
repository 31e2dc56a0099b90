"""Fuzzing of every reader in `readers.py`: random and mutated files, one process for each reader.

    python tests/fuzz.py COUNT [READER ...]     COUNT inputs for each reader; prints inputs, refusals, crashes

The tests run a short form, see `test_fuzz.py`. Hypothesis chooses the inputs, so a crash is made small.
"""

import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from readers import PEFT_KEYS, READERS, Reader, expert_bytes, files_in, raised_by_us

SLOWEST_S = 10.0  # of the processor for one input, because a busy machine may take any time
SMALL = 24 * 2**20  # bytes that a reader may take for a tiny file: code and buffers, not the content
VALUES = [b"\0", b"\xff", b"{", b"]", b'"', b",", b"\n", b"\xef\xbb\xbf", b"-1", b"1e999", b"NaN", b"9" * 20]
TOKENS = [
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'"F64"',
    b'"BF16"',
    b"\xe2\x80\xa8",
    b"../",
    b"\xed\xa0\x80",
    b"[" * 50,
]


@st.composite
def mutated(draw: st.DrawFn, seed: bytes) -> bytes:
    """Return a valid file with up to six places overwritten, cut out, doubled or filled with tokens."""
    data = bytearray(seed)
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from([0, 1, 1, 2, 4, 8, 64]))
        piece = draw(st.one_of(st.binary(max_size=8), st.sampled_from(VALUES + TOKENS)))
        kind = draw(st.sampled_from(["replace", "double", "cut"]))
        if kind == "replace":
            data[start : start + length] = piece
        elif kind == "double":
            data[start:start] = data[start : start + max(length, 16)]
        else:
            del data[start : start + draw(st.sampled_from([1, 16, len(data)]))]
    return bytes(data)


def inputs(name: str, reader: Reader) -> st.SearchStrategy[bytes]:
    """Return the inputs of a reader: mutations of a valid file, anything at all, and keys for the experts."""
    anything = [mutated(reader.seed()), st.binary(max_size=256)]
    if name == "expert":
        parts = [
            *PEFT_KEYS[0].split("."),
            "lora_unet_",
            "lora_down.weight",
            "alpha",
            "_",
            "/",
            "diff",
            "0",
            "9" * 9,
        ]
        key = st.lists(st.one_of(st.sampled_from(parts), st.text(max_size=6)), max_size=9).map(".".join)
        keys = st.lists(key.filter(lambda text: text != "__metadata__"), min_size=2, max_size=2, unique=True)
        anything += [keys.map(_named)]
    return st.one_of(anything)


def _named(keys: list[str]) -> bytes:
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
    before, start = files_in(folder.parent), time.process_time()
    counts.inputs += 1
    try:
        reader.read(folder)
    except Exception as error:
        counts.refused += 1
        if not raised_by_us(error):
            raise
    took = time.process_time() - start
    assert took < SLOWEST_S, f"took {took:.1f} s"
    assert files_in(folder.parent) == before, "a reader wrote something"


def fuzz(name: str, count: int, folder: Path, *, repeatable: bool = True) -> Counts:
    """Fuzz one reader; raise the error of the smallest input that crashes it.

    Args:
        name: one of `READERS`.
        count: inputs.
        folder: empty; the attacked files are written to a folder in it.
        repeatable: the same inputs every time.
    """
    reader, counts, inner = READERS[name], Counts(), folder / "in"
    inner.mkdir(parents=True)
    reader.prepare(inner)
    phases = [Phase.generate, Phase.shrink]

    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=repeatable,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs(name, reader))
    def one(content: bytes) -> None:
        check(reader, content, inner, counts)

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


def main() -> None:
    """Fuzz the readers named on the command line, or all, and print the counts."""
    count, names = int(sys.argv[1]), sys.argv[2:] or list(READERS)
    for name in names:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                counts = fuzz(name, count, Path(folder), repeatable=False)
            except BaseException as error:
                sys.stdout.write(f"{name}: CRASH {type(error).__name__}: {error}\n")
                raise
        took = time.perf_counter() - start
        sys.stdout.write(
            f"{name}: {counts.inputs} inputs, {counts.refused} refused, no crash, {took:.0f} s\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
