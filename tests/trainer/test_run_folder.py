"""The run folder: runs resume to the same bytes, no earlier run is lost, and a full disk stops no run."""

import dataclasses
import json

import pytest

from tiny_runs import SMALL, Cancel, cancel_at, equal_layers, metrics_of, run
from training.trainer import run_folder
from training.trainer.run_folder import append_metrics, set_aside, trim_metrics


@pytest.mark.parametrize("save_every", [0, 1])
def test_a_resumed_run_ends_with_the_same_bytes(tmp_path, save_every):
    config = dataclasses.replace(SMALL, steps=4, save_every=save_every)
    unbroken = run(config, run_dir=tmp_path / "unbroken")
    with pytest.raises(Cancel):
        run(config, run_dir=tmp_path / "broken", on_progress=cancel_at(2))
    resumed = run(config, run_dir=tmp_path / "broken", resume=True)
    assert equal_layers(resumed, unbroken)
    assert resumed.losses == unbroken.losses
    assert resumed.initial_a_hash == unbroken.initial_a_hash
    assert metrics_of(tmp_path / "broken") == metrics_of(tmp_path / "unbroken")


def test_a_killed_run_continues_from_its_last_saved_state(tmp_path):
    config = dataclasses.replace(SMALL, steps=4, save_every=2)
    unbroken = run(config)
    with pytest.raises(Cancel):
        run(config, run_dir=tmp_path, on_progress=cancel_at(3))
    (tmp_path / "state" / "step_00000003.safetensors").unlink()  # a killed process saves nothing at the end
    assert equal_layers(run(config, run_dir=tmp_path, resume=True), unbroken)
    assert [line["step"] for line in metrics_of(tmp_path)] == [1, 2, 3, 4]


def test_a_finished_run_can_be_given_more_steps(tmp_path):
    run(run_dir=tmp_path)
    longer = dataclasses.replace(SMALL, steps=5)
    assert equal_layers(run(longer, run_dir=tmp_path, resume=True), run(longer))
    with pytest.raises(ValueError, match="has 5 steps done, more than the 3"):
        run(run_dir=tmp_path, resume=True)


def test_resuming_in_an_empty_folder_starts_from_the_beginning(tmp_path):
    assert equal_layers(run(run_dir=tmp_path, resume=True), run())


def test_under_cosine_a_run_resumes_to_the_same_bytes_but_cannot_be_prolonged(tmp_path):
    cosine = dataclasses.replace(SMALL, lr_schedule="cosine")
    with pytest.raises(Cancel):
        run(cosine, run_dir=tmp_path, on_progress=cancel_at(2))
    with pytest.raises(ValueError, match="cannot be resumed: steps was 3 and is 4"):
        run(dataclasses.replace(cosine, steps=4), run_dir=tmp_path, resume=True)
    assert equal_layers(run(cosine, run_dir=tmp_path, resume=True), run(cosine))


def test_a_second_run_in_the_same_folder_renames_the_first(tmp_path):
    for _ in range(2):
        run(dataclasses.replace(SMALL, steps=1), run_dir=tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"in_use.lock", "state", "state-1", "metrics.jsonl", "metrics-1.jsonl"}


def test_a_run_saves_by_time_if_save_every_is_zero(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "SAVE_AFTER_S", 0.0)
    states = []

    def look(done, *_):
        states.append([state.stem for state in (tmp_path / "state").glob("*.safetensors")])

    run(SMALL, run_dir=tmp_path, on_progress=look)
    assert [f"step_{step:08}" in names for step, names in enumerate(states, 1)] == [True, True, False]


def full_disk(*_):
    raise OSError(28, "No space left on device")


def test_a_full_disk_does_not_stop_training(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(run_folder, "save_state", full_disk)
    assert equal_layers(run(run_dir=tmp_path), run())
    assert "the state after step 3 could not be saved: [Errno 28]" in caplog.text


def test_a_full_disk_does_not_hide_why_a_run_stopped(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(run_folder, "save_state", full_disk)
    with pytest.raises(Cancel):
        run(on_progress=cancel_at(2), on_stop=full_disk, run_dir=tmp_path)
    assert "the state after step 2 could not be saved" in caplog.text
    assert "the result after step 2 could not be saved" in caplog.text


def test_files_of_an_earlier_run_are_renamed_and_never_deleted(tmp_path):
    for content in ("first", "second"):
        (tmp_path / "metrics.jsonl").write_text(content)
        set_aside(tmp_path / "metrics.jsonl")
    set_aside(tmp_path / "metrics.jsonl")  # nothing there
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["first", "second"]


def test_metrics_are_one_line_of_json_per_step_and_can_be_trimmed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    trim_metrics(path, 3)
    for step in range(1, 6):
        append_metrics(path, {"step": step, "loss": 0.5})
    trim_metrics(path, 3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]
