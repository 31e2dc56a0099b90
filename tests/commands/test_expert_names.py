"""Experts as they are typed: their strengths, the LoRAs beside them, and short unique names."""

from pathlib import Path

import pytest

from training.commands.expert_names import expert_names, parse_stack


def test_a_name_has_only_as_many_folders_as_make_it_unique():
    paths = ["a/expert.safetensors", "b/x/expert.safetensors", "c/x/expert.safetensors", "c/hate.safetensors"]
    assert list(expert_names(map(Path, paths)).values()) == ["a/expert", "b/x/expert", "c/x/expert", "hate"]
    assert list(expert_names(map(Path, ["expert.st", "a/expert.st"])).values()) == ["expert", "a/expert"]


def test_a_stack_names_its_files_and_strengths():
    assert parse_stack("hate.safetensors") == [(Path("hate.safetensors"), None)]
    assert parse_stack("hate.safetensors=0.5") == [(Path("hate.safetensors"), 0.5)]
    assert [member.strength for member in parse_stack("hate.safetensors")] == [1.0]


def test_plus_and_equals_signs_in_the_name_of_an_existing_file_separate_nothing(tmp_path):
    hate, style = tmp_path / "hate=1.safetensors", tmp_path / "my+style.safetensors"
    hate.touch()
    style.touch()
    assert parse_stack(f"{hate}+{style}=0.5") == [(hate, None), (style, 0.5)]


@pytest.mark.parametrize("strength", ["3", "-1", "much", "nan"])
def test_a_strength_that_is_not_from_0_to_2_is_refused(strength):
    with pytest.raises(ValueError, match="STRENGTH from 0 to 2, got"):
        parse_stack(f"hate.safetensors={strength}")
