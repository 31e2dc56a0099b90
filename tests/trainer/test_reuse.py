"""A finished run with equal inputs is not trained again, and nothing else is taken for one."""

import dataclasses
from pathlib import Path

import pytest

from tiny import tiny_data, tiny_unet
from tiny_runs import Cancel
from training.config import TrainConfig
from training.models.noise import NoiseSchedule
from training.trainer.run import Callbacks
from training.trainer.train_expert import Destination, Subject, train_expert

CONFIG = TrainConfig(beta=500.0, steps=2, batch_size=2, rank=2, learning_rate=1e-2, seed=3)
SUBJECT = Subject("violence", "sd15", "b" * 64)
DATA = tiny_data()
UNET = tiny_unet()  # every run leaves it as it was


class Trainer:
    """Trains into one run folder, with a new file name each time, and counts the steps taken."""

    def __init__(self, folder: Path):
        self.folder, self.steps, self.number = folder, 0, 0

    def __call__(self, *, cancel_after: int = 0, reuse: bool = True, **changes):
        self.steps, self.number = 0, self.number + 1
        inputs = {"config": CONFIG, "data": DATA, "subject": SUBJECT, **changes}

        def count(step, *_):
            self.steps += 1
            if step == cancel_after:
                raise Cancel

        out = self.folder / f"x_{self.number}.safetensors"
        destination = Destination(out, self.folder / "run", reuse=reuse)
        config, data, subject = inputs["config"], inputs["data"], inputs["subject"]
        return train_expert(
            UNET,
            data,
            NoiseSchedule.scaled_linear(),
            config,
            subject=subject,
            destination=destination,
            callbacks=Callbacks(on_progress=count),
        )


@pytest.fixture
def trainer(tmp_path):
    return Trainer(tmp_path)


def test_equal_inputs_give_the_expert_and_the_figures_of_the_finished_run(trainer):
    first, result = trainer()
    assert (trainer.steps, result.is_reused) == (2, False)
    again, reused = trainer()
    assert (trainer.steps, reused.is_reused) == (0, True)
    assert (again.name, again.content_hash) == (first.name, first.content_hash)
    assert again.metadata == first.metadata
    same = ("losses", "metrics", "steps_done", "config", "plan", "seconds", "validations", "kept")
    assert {name: getattr(reused, name) for name in same} == {name: getattr(result, name) for name in same}
    assert [path.name for path in trainer.folder.glob("*.safetensors")] == ["x_1.safetensors"]


def test_options_that_do_not_change_the_expert_do_not_train_it_again(trainer):
    trainer()
    trainer(config=dataclasses.replace(CONFIG, save_every=1, checkpointing="full"))
    assert trainer.steps == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"config": dataclasses.replace(CONFIG, seed=4)},
        {"config": dataclasses.replace(CONFIG, steps=1)},
        {"config": dataclasses.replace(CONFIG, learning_rate=2e-2)},
        {"data": dataclasses.replace(DATA, encoding_hash="of other pictures")},
        {"data": dataclasses.replace(DATA, unsafe_prompt=DATA.unsafe_prompt.flip(0))},
        {"subject": dataclasses.replace(SUBJECT, base_hash="c" * 64)},
        {"subject": dataclasses.replace(SUBJECT, category="hate")},
        {"reuse": False},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_any_other_input_trains(trainer, changes):
    trainer()
    trainer(**changes)
    assert trainer.steps > 0


def test_a_run_that_broke_off_does_not_count(trainer):
    with pytest.raises(Cancel):
        trainer(cancel_after=1)
    _, result = trainer()
    assert (trainer.steps, result.is_reused) == (2, False)


def test_a_run_in_between_does_not_hide_the_first(trainer):
    first, _ = trainer()
    trainer(config=dataclasses.replace(CONFIG, seed=4))
    again, _ = trainer()
    assert (trainer.steps, again.name) == (0, first.name)


@pytest.mark.parametrize("spoil", [Path.unlink, lambda file: file.write_bytes(b"other")])
def test_an_expert_that_was_deleted_or_changed_is_trained_again(trainer, spoil):
    first, _ = trainer()
    spoil(trainer.folder / first.name)
    again, _ = trainer()
    assert trainer.steps == 2
    assert again.content_hash == first.content_hash
