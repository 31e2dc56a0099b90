"""Every command that writes, under every fault of a machine: it stops with a sentence, and loses nothing.

After each fault no finished file is torn, and the same command started again leaves the files of an unbroken
run. `benchmarks/survival.py` does the same with SIGKILL, for all commands.
"""

import errno
import math
import os
import random
import shutil
import time
from contextlib import contextmanager

import pytest
import torch
from diffusers import UNet2DConditionModel

from tiny_commands import RUNS, WRITERS, damaged, file_operations, prepare, start, tree, write_given
from training.commands.output import ProgressBar

QUICK = ("pairs weigh", "pairs import-coprov2", "pairs move", "pairs rewrite")
MOMENTS = 3  # of each fault in each command: the first possible one, the last and one between
COMMANDS = [name for name in RUNS if name in WRITERS]
MODELS = [name for name in COMMANDS if RUNS[name].is_measured]  # which run the UNet
KEPT_ON = ("_partial.", "_run/state/")  # what training had learned, and where it would go on
READERS = [name for name in COMMANDS if name != "pairs move"]  # which reads no file, and has no stages
slow = pytest.mark.slow


def each(names):
    return [pytest.param(name, marks=() if name in QUICK else slow) for name in names]


class Counter:
    """Counts calls, and at one of them, or from it on, does something; None only counts."""

    def __init__(self, at=None, then=None, *, stays=False):
        self.at, self.then, self.stays, self.count = at, then, stays, 0

    def __call__(self, *arguments):
        self.count += 1
        if self.at is not None and (self.count == self.at or (self.stays and self.count > self.at)):
            return self.then(*arguments)
        return None


def raising(error):
    def then(*_):
        raise error

    return then


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return write_given(tmp_path_factory.mktemp("given") / "given")


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """The folder of every run: a report names it, so equal runs have the same."""
    return tmp_path_factory.mktemp("work") / "new"


@pytest.fixture(scope="module")
def unbroken(given, new):
    """Return a function that returns the folder and the files of a command that met no fault."""
    known = {}

    def of(name):
        if name not in known:
            shutil.rmtree(new, ignore_errors=True)
            prepare(name, given, new)
            outcome = start(name, given, new)
            assert outcome.code == 0, outcome.err
            known[name] = tree(new)
            shutil.rmtree(new)
        return known[name]

    return of


@pytest.fixture
def trial(given, unbroken, new):
    """Return a function that runs a command under a fault, checks what is left, and starts it again."""

    def run(name, fault, *, codes=(1,), says=""):
        expected = unbroken(name)
        shutil.rmtree(new, ignore_errors=True)
        prepare(name, given, new)
        with fault:
            outcome = start(name, given, new)
        assert outcome.code in codes, outcome.err
        assert "Traceback" not in outcome.err
        assert says in outcome.err.splitlines()[-1] if outcome.code else True
        assert damaged(new) == []
        if outcome.code or name == "pairs weigh":
            again = start(name, given, new, again=True)
            assert again.code == 0, again.err
        files, expected = (
            {path: content for path, content in found.items() if not any(part in path for part in KEPT_ON)}
            for found in (tree(new), expected)
        )
        assert files.keys() == expected.keys()
        assert [path for path in files if files[path] != expected[path]] == []
        return outcome

    return run


def moments(name, count):
    """Return the first call, the last and some between, the same in every run."""
    between = random.Random(name).sample(range(2, count), min(MOMENTS - 2, max(count - 2, 0)))
    return sorted({1, *between, count})


@contextmanager
def patched(target, name, value):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, name, value)
        yield


def writes(new, counter):
    return file_operations(new, lambda kind, path: counter(path) if kind == "write" else None)


@pytest.fixture
def count_of(given, unbroken, new):
    """Return a function that returns how often a fault could happen in a command that meets none."""

    def count(name, fault):
        unbroken(name)  # what is computed once per process is known from here on
        shutil.rmtree(new, ignore_errors=True)
        prepare(name, given, new)
        counter = Counter()
        with fault(counter):
            assert start(name, given, new).code == 0
        return counter.count

    return count


@pytest.mark.parametrize("name", each(COMMANDS))
def test_a_full_disk_stops_it_with_a_sentence_and_nothing_is_torn(count_of, trial, new, name):
    count = count_of(name, lambda counter: writes(new, counter))
    full = raising(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    for moment in moments(name, count):
        fault = writes(new, Counter(moment, full, stays=True))
        trial(name, fault, codes=(1, 2), says="space")


@pytest.mark.parametrize("name", each(COMMANDS))
@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS], ids=["folder", "disk"])
def test_a_read_only_place_is_refused_and_nothing_is_written(trial, new, name, code):
    fault = writes(new, Counter(1, raising(OSError(code, os.strerror(code))), stays=True))
    trial(name, fault, codes=(1, 2))


@contextmanager
def cancelling(counter):
    def call(self, *arguments):
        counter()

    with patched(ProgressBar, "__call__", call):
        yield


@pytest.mark.parametrize("name", each(READERS))
def test_a_cancel_at_any_stage_loses_nothing(count_of, trial, name):
    count = count_of(name, cancelling)
    for moment in moments(name, count):
        fault = cancelling(Counter(moment, raising(KeyboardInterrupt)))
        trial(name, fault, codes=(130,), says="stopped by Ctrl-C")


@contextmanager
def in_the_unet(counter):
    """Ask a counter before each pass of the UNet; what it returns takes the place of the prediction."""
    forward = UNet2DConditionModel.forward

    def counting(self, *arguments, **options):
        prediction = forward(self, *arguments, **options)
        return prediction if counter(prediction) is None else prediction

    with patched(UNet2DConditionModel, "forward", counting):
        yield


@pytest.mark.parametrize("name", each(MODELS))
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("out of memory"), MemoryError()], ids=["gpu", "main"]
)
def test_a_full_memory_within_a_step_stops_it_with_a_sentence(count_of, trial, name, error):
    count = count_of(name, in_the_unet)
    for moment in moments(name, count)[1:]:
        trial(name, in_the_unet(Counter(moment, raising(error))), says="memory")


@pytest.mark.parametrize("name", each(MODELS))
def test_a_prediction_that_is_not_a_number_never_becomes_a_result(count_of, trial, name):
    count = count_of(name, in_the_unet)
    for moment in moments(name, count)[1:]:
        fault = in_the_unet(Counter(moment, lambda prediction: prediction.sample.data.fill_(math.nan)))
        trial(name, fault, codes=(0, 1, 2), says="finite")  # 0: no result reads this prediction


def reads(root, inputs, counter):
    """Call a counter with every input file of a command that it opens to read."""
    return file_operations(
        root, lambda kind, path: counter(path) if kind == "read" and path in inputs else None
    )


@pytest.mark.parametrize("name", each(READERS))
def test_a_file_that_is_removed_under_the_reader_is_named(given, tmp_path, name):
    def place(root):
        shutil.copytree(given, root / "given")
        prepare(name, root / "given", root / "new")
        return {str(path) for path in root.rglob("*") if path.is_file()}

    root, opened = tmp_path / "0", []
    with reads(root, place(root), opened.append):
        assert start(name, root / "given", root / "new").code == 0
    expected = tree(root / "new")
    for moment in moments(name, len(opened)):
        root = tmp_path / str(moment)
        removed = Counter(moment, lambda path: os.unlink(path) or opened.append(path))
        with reads(root, place(root), removed):
            outcome = start(name, root / "given", root / "new")
        shown = outcome.out + outcome.err
        assert "Traceback" not in shown
        assert damaged(root / "new") == []
        assert outcome.code in (0, 1, 2)
        if outcome.code:
            assert os.path.basename(opened[-1]) in outcome.err.splitlines()[-1], (opened[-1], shown)
        elif tree(root / "new") != expected:  # unless it was read as a whole: one row fewer, counted
            reasons = ("cannot be", "does not exist", "missing")
            assert any(reason in shown for reason in reasons), (opened[-1], shown)


@pytest.mark.parametrize("name", each(COMMANDS))
def test_a_clock_that_is_set_back_changes_nothing(trial, name):
    now, counter = time.time(), Counter()

    def backwards():
        counter()
        return now - 86_400 * counter.count

    trial(name, patched(time, "time", backwards), codes=(0,))
