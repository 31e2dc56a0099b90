"""The file of a guard keeps everything, is bound to its encoder, and is refused if it cannot be trusted."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny_guards import CONFIG, ENCODER, OTHER, harmless_prompts, tiny_data
from training.guards import open_guard, save_guard
from training.guards.guard_file import read_guard_file
from training.guards.train_concept import train_concept_guard
from training.system.tensors import open_tensors

ENCODERS = {"clip": lambda: ENCODER}


@pytest.fixture(scope="module")
def guard():
    return train_concept_guard(tiny_data(), ENCODER, CONFIG, harmless=harmless_prompts()).guard


@pytest.fixture
def path(guard, tmp_path):
    return save_guard(guard, tmp_path / "guard.safetensors")


def rewritten(path, name="changed.safetensors", tensors=None, **changes):
    """Return a copy of a guard's file with other metadata; None removes an entry."""
    with open_tensors(path) as opened:
        metadata = dict(opened.metadata)
    metadata |= {f"alignguard.{key}": value for key, value in changes.items() if value is not None}
    metadata = {key: value for key, value in metadata.items() if changes.get(key[11:], "") is not None}
    save_file({**load_file(path), **(tensors or {})}, path.with_name(name), metadata)
    return path.with_name(name)


def test_a_guard_read_back_gives_the_same_verdicts(guard, path):
    stored = open_guard(path, ENCODERS)
    for prompt in ("a sword on red", "a spoon on red", "something else"):
        assert stored.look(prompt) == guard.look(prompt)
    assert (stored.concepts, stored.calibration) == (guard.concepts, guard.calibration)


def test_the_same_guard_is_written_as_the_same_bytes(guard, path, tmp_path):
    assert save_guard(guard, tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_the_file_holds_no_prompt(path):
    content = path.read_bytes()
    assert b"sword" in content  # the concept
    assert b"on red" not in content
    assert b"cup1" not in content


def test_words_stay_out_of_the_file_on_demand(tmp_path):
    config = dataclasses.replace(CONFIG, store_concepts=False)
    secret = train_concept_guard(tiny_data(), ENCODER, config, harmless=harmless_prompts()).guard
    file = save_guard(secret, tmp_path / "secret.safetensors")
    assert b"sword" not in file.read_bytes()
    assert open_guard(file, ENCODERS).look("a sword on red").blocked
    with pytest.raises(ValueError, match="stores no words"):
        open_guard(file, ENCODERS).only(["sword"])


def test_a_guard_of_another_encoder_is_refused_by_name(path):
    with pytest.raises(
        ValueError, match="guard.safetensors was trained for the clip encoder aaaaaaaaaaaa, but"
    ):
        open_guard(path, {"clip": lambda: OTHER})


def test_an_existing_file_is_never_replaced(guard, path):
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        save_guard(guard, path)
    assert path.read_bytes() == before


def test_a_guard_whose_weights_are_not_finite_is_not_written(guard, tmp_path):
    broken = dataclasses.replace(guard, concept_rows=guard.concept_rows * torch.nan)
    with pytest.raises(ValueError, match="concepts: 64 of 64 values are not finite"):
        save_guard(broken, tmp_path / "broken.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_pickle_is_refused_by_name(tmp_path):
    torch.save({"scale": torch.ones(1)}, tmp_path / "guard.pth")
    with pytest.raises(ValueError, match="guard.pth is a pickle"):
        read_guard_file(tmp_path / "guard.pth")


def test_a_missing_guard_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.safetensors does not exist"):
        read_guard_file(tmp_path / "none.safetensors")


def test_a_file_that_is_no_guard_is_refused(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match="lora.safetensors is not a prompt guard"):
        read_guard_file(tmp_path / "lora.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "9"}, "another version"),
        ({"kind": "oracle"}, "unknown kind, 'oracle'"),
        ({"encoder": "abacus"}, "unknown text encoder, 'abacus'"),
        ({"calibration": None}, "metadata of changed.safetensors is damaged"),
        ({"calibration": "{"}, "metadata of changed.safetensors is damaged"),
        ({"calibration": "[1]"}, "metadata of changed.safetensors is damaged"),
        ({"concepts": "7"}, "concepts in changed.safetensors are damaged"),
        ({"concepts": "[]"}, "concepts in changed.safetensors are damaged"),
        ({"concepts": json.dumps([["sword", 1]] * 4)}, "concepts in changed.safetensors are damaged"),
        ({"heads": "3"}, "head in changed.safetensors is incomplete or misshapen"),
        ({"heads": '"2"'}, "head in changed.safetensors is incomplete or misshapen"),
        ({"tensors": {"value.weight": torch.ones(3, 3)}}, "incomplete or misshapen"),
        ({"tensors": {"key.weight": torch.ones(3)}}, "incomplete or misshapen"),
        ({"tensors": {"scale": torch.tensor(torch.nan)}}, "scale: 1 of 1 values are not finite"),
    ],
)
def test_a_damaged_guard_is_refused_with_what_is_wrong(path, changes, message):
    with pytest.raises(ValueError, match=message):
        open_guard(rewritten(path, **changes), ENCODERS)


@pytest.mark.parametrize(
    "field",
    [
        {"threshold": float("nan")},
        {"hits": 99},
        {"num_set": -1},
        {"num_measured": 2.5},
        {"num_measured": 10**400},
    ],
)
def test_a_calibration_that_cannot_be_is_refused(guard, path, field):
    calibration = {**guard.calibration.facts(), **field}
    with pytest.raises(ValueError, match="metadata of changed.safetensors is damaged"):
        open_guard(rewritten(path, calibration=json.dumps(calibration)), ENCODERS)


def test_a_torn_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged or incomplete"):
        open_guard(path, ENCODERS)
