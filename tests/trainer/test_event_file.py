"""TensorBoard's file: written where its package is installed, and not needed where it is not."""

import dataclasses
import sys

import pytest

from tiny_runs import SMALL, Cancel, cancel_at, equal_layers, metrics_of, run
from training.trainer.event_file import EVENTS

CONFIG = dataclasses.replace(SMALL, objective="alignguard", validation=0.34, validate_every=2)


@pytest.fixture
def read_events(monkeypatch):
    """Return a reader of the scalars in a folder, name -> {step: value}, by TensorBoard's own code."""
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard")  # see conftest
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
    )

    def read(folder):
        events = accumulator.EventAccumulator(str(folder / EVENTS))
        events.Reload()
        tags = events.Tags()["scalars"]
        return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in tags}

    return read


def test_every_figure_of_every_step_is_written_under_the_names_of_trl(tmp_path, read_events):
    run(CONFIG, run_dir=tmp_path)
    events, lines = read_events(tmp_path), metrics_of(tmp_path)
    names = {
        "loss": "loss",
        "implicit_accuracy": "rewards/accuracies",
        "validation_distance": "eval_distance",
    }
    for name, tag in names.items():
        expected = {line["step"]: line[name] for line in lines if name in line}
        assert events[tag] == pytest.approx(expected, rel=1e-6)
    logits = {line["step"]: line["margin"] * CONFIG.beta / 2 for line in lines}
    assert events["rewards/margins"] == pytest.approx(logits, rel=1e-6)
    assert events["eval_rewards/margins"].keys() == {2, 3}
    assert "step" not in events


def test_a_resumed_run_shows_each_step_once(tmp_path, read_events):
    config = dataclasses.replace(CONFIG, save_every=2)
    with pytest.raises(Cancel):
        run(config, run_dir=tmp_path, on_progress=cancel_at(3))
    newest = sorted((tmp_path / "state").iterdir())[-1]
    newest.unlink()  # as if it had been killed
    run(config, run_dir=tmp_path, resume=True)
    assert list(read_events(tmp_path)["loss"]) == [1, 2, 3]
    run(dataclasses.replace(config, steps=1), run_dir=tmp_path)
    assert list(read_events(tmp_path)["loss"]) == [1]  # the earlier run was renamed
    assert (tmp_path / f"{EVENTS}-1").is_dir()


def test_a_full_disk_ends_the_file_and_not_the_training(tmp_path, read_events, monkeypatch, caplog):
    from torch.utils.tensorboard import SummaryWriter  # late: it is optional

    def add_scalar(self, tag, value, step):
        if step == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", add_scalar)
    assert equal_layers(run(CONFIG, run_dir=tmp_path), run(CONFIG))
    assert caplog.text.count("no more is written for TensorBoard: [Errno 28]") == 1


class Unfit:
    """An import system in which TensorBoard finds a protobuf version that it does not fit."""

    def find_spec(self, name, path=None, target=None):
        if name == "torch.utils.tensorboard":
            raise TypeError("Descriptors cannot be created directly.")


def test_a_tensorboard_that_cannot_be_loaded_is_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard")  # see conftest
    monkeypatch.setattr(sys, "meta_path", [Unfit(), *sys.meta_path])
    assert equal_layers(run(CONFIG, run_dir=tmp_path), run(CONFIG))
    assert "which cannot be loaded: Descriptors cannot be created directly." in caplog.text


def test_training_without_tensorboard_is_the_same(tmp_path):
    assert equal_layers(run(CONFIG, run_dir=tmp_path), run(CONFIG))
    assert not (tmp_path / EVENTS).exists()
    assert len(metrics_of(tmp_path)) == 3
