"""The weights of the large world: small, complete, and clear about what is missing."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from training.mini import shipped
from training.mini.judge import NO_ICON
from training.mini.large.concepts import ALL_CONCEPTS
from training.mini.large.shipped import LARGE, new_judge

LIMIT_BYTES = 12_000_000


def test_all_weights_together_are_small():
    assert 0 < sum(path.stat().st_size for path in LARGE.folder.iterdir()) <= LIMIT_BYTES


def test_the_judge_knows_every_concept_and_nothing():
    concepts, grounds = new_judge().tables
    assert concepts == (*(concept.name for concept in ALL_CONCEPTS), NO_ICON)
    assert len(set(concepts)) == len(ALL_CONCEPTS) + 1
    assert len(grounds) == 5


def test_the_large_judge_answers_with_a_concept_and_a_ground():
    answers = LARGE.load_judge().answers(torch.zeros(2, 3, 64, 64))
    assert [len(answer) for answer in answers] == [2, 2]


def test_a_missing_part_is_named_with_the_command_that_makes_it(tmp_path):
    empty = replace(LARGE, folder=tmp_path)
    message = (
        r"weights of the large world are not complete: .*unet\.safetensors is missing.*training\.mini\.large"
    )
    for needs_unet in (empty.load_unet, empty.version):
        with pytest.raises(FileNotFoundError, match=message):
            needs_unet()
    with pytest.raises(FileNotFoundError, match="tokens.safetensors is missing"):
        empty.token_rows()


def test_the_version_follows_the_weights(tmp_path):
    weights = replace(LARGE, folder=tmp_path)
    for name in ("unet", "autoencoder", "judge", "tokens"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    first = weights.version()
    save_file({"x": torch.ones(1)}, tmp_path / "judge.safetensors")
    assert len(first) == 12
    assert first not in (weights.version(), shipped.SMALL.version())


def test_only_the_large_world_stores_token_rows():
    assert shipped.SMALL.token_rows() is None
    assert len(LARGE.token_rows()) == 2
