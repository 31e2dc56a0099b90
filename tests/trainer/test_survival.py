"""Runs survive a kill at any moment, a full disk and a lock: nothing is lost, and the bytes are the same."""

import os
import random
import time
from contextlib import contextmanager

import pytest

from processes_of_tests import CONFIG, forking_context, train_in
from training.config import TrainConfig
from training.system.work_folder import locked

resource = pytest.importorskip("resource", reason="limits of a process are a matter of POSIX")
KILLS = 4


@contextmanager
def disk_that_takes_files_of(num_bytes):
    """Limit the size of every file, as a full disk does; Python turns the signal into an OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def read_only(folder):
    """Make a folder read-only while the context lasts, for root too."""
    folder.chmod(0o555)
    if is_root := os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)


def lines_of(folder):
    file = folder / "run" / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.slow
def test_a_run_killed_at_random_points_ends_with_the_bytes_of_an_unbroken_one(tmp_path):
    context = forking_context()
    broken, unbroken, chance = tmp_path / "broken", tmp_path / "unbroken", random.Random(0)
    killed = 0
    while not (broken / "x.safetensors").exists():
        target = lines_of(broken) + chance.randint(1, CONFIG.steps // KILLS)
        process = context.Process(target=train_in, args=(broken,))
        process.start()
        while killed < KILLS and lines_of(broken) < target and process.is_alive():
            time.sleep(0.002)
        if killed < KILLS:
            time.sleep(chance.random() * 0.05)  # while a step, a state or the expert is written
            process.kill()
            killed += 1
        process.join()
        assert process.exitcode in (0, -9)
    train_in(unbroken)
    assert killed == KILLS
    for name in ("x.safetensors", "run/expert.safetensors", "run/metrics.jsonl"):
        assert (broken / name).read_bytes() == (unbroken / name).read_bytes()
    states = [
        sorted(path.name for path in (folder / "run" / "state").iterdir()) for folder in (broken, unbroken)
    ]
    assert states[0] == states[1] == ["step_00000023.safetensors", "step_00000024.safetensors"]


def test_two_runs_never_write_the_same_folder(tmp_path):
    with locked(tmp_path / "run"):
        with pytest.raises(ValueError, match=r"another run is using the folder .*run\. Wait until"):
            train_in(tmp_path)
    train_in(tmp_path, TrainConfig(steps=1))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "expert.safetensors",
        "in_use.lock",
        "metrics.jsonl",
        "state",
    ]


def test_after_a_full_disk_a_run_continues_from_what_was_saved_before(tmp_path, caplog):
    short = TrainConfig(steps=2, rank=2, batch_size=2, save_every=1, lr_schedule="constant")
    longer = TrainConfig(steps=4, rank=2, batch_size=2, save_every=1, lr_schedule="constant")
    train_in(tmp_path, short).unlink()
    states = sorted(path.name for path in (tmp_path / "run" / "state").iterdir())
    with (
        disk_that_takes_files_of(8000),
        pytest.raises(OSError, match=r"x.safetensors cannot be written to .* Free some space. The run"),
    ):
        train_in(tmp_path, longer)
    assert "the state after step 3 could not be saved" in caplog.text
    assert sorted(path.name for path in (tmp_path / "run" / "state").iterdir()) == states
    assert not (tmp_path / "x.safetensors").exists()
    after = train_in(tmp_path, longer)
    (tmp_path / "other").mkdir()
    assert after.read_bytes() == train_in(tmp_path / "other", longer).read_bytes()
    assert lines_of(tmp_path) == 4


def test_metrics_that_do_not_fit_on_the_disk_cause_one_warning_and_no_torn_line(tmp_path, caplog):
    with disk_that_takes_files_of(1000), pytest.raises(OSError, match="cannot be written"):
        train_in(tmp_path, TrainConfig(steps=6, rank=2, batch_size=2))
    assert caplog.text.count("the metrics from step") == 1
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes().endswith(b"}\n")


def test_a_read_only_folder_is_refused_before_anything_is_trained(tmp_path):
    with read_only(tmp_path), pytest.raises(PermissionError, match=str(tmp_path)):
        train_in(tmp_path)
    assert list(tmp_path.iterdir()) == []
