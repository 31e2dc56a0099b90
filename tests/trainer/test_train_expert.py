"""From cached data to an expert on disk: the metadata is complete, and nothing is lost or overwritten."""

import dataclasses
import json

import pytest
import torch

from tiny import predict, tiny_data, tiny_unet
from tiny_runs import Cancel
from training.config import TrainConfig
from training.experts.expert import load_expert
from training.models.noise import NoiseSchedule
from training.rules.categories import CATEGORIES
from training.trainer.run import Callbacks
from training.trainer.train_expert import Destination, Subject, expert_name, train_expert

SMALL = TrainConfig(beta=500.0, steps=2, batch_size=2, rank=2, learning_rate=1e-2, seed=3, validation=0.0)
UNET = tiny_unet()  # every run leaves it as it was


def cancel(done, total, loss):
    raise Cancel


SUBJECT = Subject("Self_Harm", "sd15", "b" * 64)


def make(out, config=SMALL, *, data=None, subject=SUBJECT, on_progress=None, **stored):
    return train_expert(
        UNET,
        data or tiny_data(),
        NoiseSchedule.scaled_linear(),
        config,
        subject=subject,
        destination=Destination(out, **stored),
        callbacks=Callbacks(on_progress=on_progress) if on_progress else None,
    )


def test_the_expert_returned_is_the_one_in_the_file(tmp_path):
    expert, result = make(tmp_path / "new" / "x.safetensors")
    back = load_expert(tmp_path / "new" / "x.safetensors")
    assert back.content_hash == expert.content_hash
    assert back.metadata == expert.metadata
    assert (expert.name, expert.categories, expert.family) == ("x.safetensors", ("self-harm",), "sd15")
    assert all(torch.equal(expert.layers[name].up, result.layers[name].up) for name in result.layers)


def test_the_file_has_all_metadata_that_is_needed_to_repeat_it(tmp_path):
    metadata = make(tmp_path / "x.safetensors")[0].metadata
    stated = {key.removeprefix("alignguard."): value for key, value in metadata.items()}
    expected = {
        "version": "1",
        "categories": "self-harm",
        "family": "sd15",
        "objective": "anchored",
        "beta": "500",
        "steps": "2",
        "learning_rate": "0.01",
        "rank": "2",
        "seed": "3",
        "base_hash": "b" * 64,
        "pairs_hash": "0" * 64,
        "complete": "true",
        "validation": "not measured",
        "anchor_weight": "100",
        "precision": "fp32",  # which auto is on a CPU
    }
    assert {key: stated[key] for key in expected} == expected
    assert "beta / 2 in the logit, as AlignGuard" in stated["beta_convention"]
    assert len(stated["initial_a_hash"]) == 64
    assert json.loads(stated["training_figures"])["step"] == 2
    assert metadata["modelspec.title"] == "x"
    assert metadata["ss_steps"] == "2"


def test_the_file_and_the_report_state_the_training_resolution(tmp_path):
    data = dataclasses.replace(tiny_data(), resolution=64)
    expert = make(tmp_path / "x.safetensors", data=data)[0]
    assert expert.metadata["modelspec.resolution"] == "64x64"  # as the ModelSpec standard writes it
    assert expert.metadata["ss_resolution"] == "(64, 64)"  # as the tools that read ss_* write it
    assert "resolution: 64x64" in expert.report().splitlines()
    older = make(tmp_path / "y.safetensors")[0]  # its data has no resolution, as in older versions
    assert not {"modelspec.resolution", "ss_resolution"} & older.metadata.keys()
    assert "resolution" not in older.report()


def test_the_file_and_the_report_state_the_figures_on_held_out_pairs(tmp_path):
    config = dataclasses.replace(SMALL, validation=0.34, validate_every=1)
    expert, result = make(tmp_path / "x.safetensors", config)
    stated = json.loads(expert.metadata["alignguard.validation"])
    assert stated == result.validation
    assert stated.keys() == {"step", "margin", "implicit_accuracy", "distance"}
    text = f"on held-out pairs: margin {stated['margin']:.4g}, implicit_accuracy "
    assert text in expert.report()
    assert "on held-out pairs: not measured" in make(tmp_path / "y.safetensors")[0].report()


def stated_by(out, **options):
    metadata = make(out, dataclasses.replace(SMALL, steps=1, **options))[0].metadata
    return {key.removeprefix("alignguard."): value for key, value in metadata.items()}


def test_a_file_states_resolved_values_and_no_option_its_objective_does_not_use(tmp_path):
    optional = {"anchor_weight", "preserve_weight", "row_dropout", "reach"}
    paper = stated_by(tmp_path / "1.safetensors", objective="alignguard", beta=0.0)
    assert (paper["beta"], paper["prompts"], paper["caption_dropout"]) == ("5000", "pair", "0.2")
    assert not optional & paper.keys()
    kept = stated_by(tmp_path / "2.safetensors", objective="alignguard", preserve_weight=3.0)
    assert optional & kept.keys() == {"preserve_weight"}
    assert kept["preserve_weight"] == "3"
    ours = stated_by(tmp_path / "3.safetensors", preserve_weight=0.0)
    assert (ours["anchor_weight"], ours["preserve_weight"], ours["row_dropout"]) == ("100", "0", "0")


def test_duo_states_its_beta_in_both_conventions_also_in_the_report(tmp_path):
    config = dataclasses.replace(SMALL, steps=1, objective="duo")
    expert, _ = make(tmp_path / "x.safetensors", config)
    assert expert.metadata["alignguard.beta"] == "500"
    assert expert.metadata["alignguard.preserve_weight"] == "5000000"
    assert expert.metadata["alignguard.prompts"] == "empty"
    for text in (expert.metadata["alignguard.beta_convention"], expert.report()):
        assert "beta in the logit, as DUO" in text
        assert "in AlignGuard this is 1000" in text


def test_equal_runs_write_equal_bytes_also_when_resumed(tmp_path):
    one, two = tmp_path / "1" / "x.safetensors", tmp_path / "2" / "x.safetensors"
    make(one)
    with pytest.raises(Cancel):
        make(two, run_dir=tmp_path / "run", on_progress=cancel)
    make(two, run_dir=tmp_path / "run", resume=True)
    assert one.read_bytes() == two.read_bytes()


def test_a_run_is_not_resumed_for_a_base_model_of_another_hash(tmp_path):
    with pytest.raises(Cancel):
        make(tmp_path / "x.safetensors", run_dir=tmp_path / "run", on_progress=cancel)
    other = dataclasses.replace(SUBJECT, base_hash="c" * 64)
    with pytest.raises(ValueError, match="the base model is a different one"):
        make(tmp_path / "x.safetensors", subject=other, run_dir=tmp_path / "run", resume=True)


def test_an_existing_file_is_refused_before_training_starts(tmp_path):
    out = tmp_path / "x.safetensors"
    out.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="x.safetensors already exists"):
        make(out, on_progress=lambda *_: pytest.fail("it trained"))
    assert out.read_bytes() == b"precious"


def test_a_name_taken_while_training_gets_a_number(tmp_path):
    out = tmp_path / "x.safetensors"
    expert, _ = make(out, on_progress=lambda *_: out.write_bytes(b"precious"))
    assert expert.name == "x_2.safetensors"
    assert out.read_bytes() == b"precious"
    assert load_expert(tmp_path / "x_2.safetensors").content_hash == expert.content_hash


def test_a_cancelled_run_leaves_a_usable_partial_expert(tmp_path):
    for _ in range(2):
        with pytest.raises(Cancel):
            make(tmp_path / "x.safetensors", on_progress=cancel)
    assert {path.name for path in tmp_path.iterdir()} == {
        "x_partial.safetensors",
        "x_partial_2.safetensors",
    }
    partial = load_expert(tmp_path / "x_partial.safetensors")
    assert partial.metadata["alignguard.steps"] == "1"
    assert partial.metadata["alignguard.complete"] == "false"
    once, _ = make(tmp_path / "once.safetensors", dataclasses.replace(SMALL, steps=1))
    assert partial.content_hash == once.content_hash


def test_a_run_that_learned_nothing_writes_no_expert(tmp_path):
    config = dataclasses.replace(SMALL, learning_rate=1e-60)  # below the smallest fp32 number
    with pytest.raises(RuntimeError, match="training changed nothing in 2 steps"):
        make(tmp_path / "x.safetensors", config)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "category", "message"),
    [
        ("x.safetensors", " ", "a category needs a name"),
        ("x.pt", "hate", "must end in .safetensors, got 'x.pt'"),
    ],
)
def test_a_blank_category_or_a_wrong_ending_is_refused_before_training(tmp_path, name, category, message):
    subject = dataclasses.replace(SUBJECT, category=category)
    with pytest.raises(ValueError, match=message):
        make(tmp_path / name, subject=subject, on_progress=lambda *_: pytest.fail("it trained"))


@pytest.mark.parametrize("stem", ["a" * 245, "a" * 237, "\u65e5" * 82])
def test_a_name_too_long_for_the_file_or_for_its_partial_one_is_refused_before_training(tmp_path, stem):
    with pytest.raises(OSError, match=r"Choose a shorter name; .*_partial.* Nothing was trained yet"):
        make(tmp_path / f"{stem}.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_created_is_refused_before_training(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        OSError, match=r"x\.safetensors cannot be written to .*choose another\. Nothing was trained"
    ):
        make(tmp_path / "file" / "x.safetensors", on_progress=lambda *_: pytest.fail("it trained"))


def test_the_base_model_is_given_back_unchanged(tmp_path):
    before = predict(UNET)
    make(tmp_path / "x.safetensors")
    assert torch.equal(predict(UNET), before)


def test_file_names_come_from_the_category():
    assert expert_name("Self-Harm") == "alignguard_self_harm"
    assert expert_name("Harrasment") == "alignguard_harassment"
    assert expert_name("my / own..thing") == "alignguard_my_own_thing"
    assert len({expert_name(category) for category in CATEGORIES}) == 7
    with pytest.raises(ValueError, match="needs a name"):
        expert_name("")
