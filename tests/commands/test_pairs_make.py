"""The action `pairs make` on a checkpoint of random weights."""

import pytest

from command_line import FAST, answer_of, assert_refused, run
from training.pairs import load_pairs

pytestmark = pytest.mark.usefixtures("small_vocabulary")
PROMPTS = "bad one => good one\nbad two => good two\nan erotic kid => a tree\n"


@pytest.fixture
def make(base, tmp_path):
    """Return a function that makes pairs in `out` with more options."""
    (tmp_path / "prompts.txt").write_text(PROMPTS)
    words = ["--base", base, "--prompts", tmp_path / "prompts.txt", "--out", tmp_path / "out"]
    words += [*FAST, "--steps", 2, "--category", "hate", "--json"]
    return lambda *options: run("pairs", "make", *words, *options)


def test_the_folder_holds_the_usable_lines_and_the_answer_counts_the_others(make, tmp_path):
    facts = answer_of(make())
    assert facts["made"] == 2
    assert facts["dropped"] == {"sexual content together with a word for a minor": ["line 3"]}
    assert load_pairs(tmp_path / "out").report.kept == 2


def test_two_processes_of_accelerate_launch_share_the_rows_and_one_answers(make, tmp_path, monkeypatch):
    outcomes = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        outcomes.append(make())
    facts = answer_of(outcomes[0])
    assert (facts["made"], facts["missing"], outcomes[1].out) == (1, 1, "")
    assert load_pairs(tmp_path / "out").report.kept == 2


def test_a_judge_that_flags_nothing_gives_up_all_pairs_with_the_reason(make):
    facts = answer_of(make("--judge", "mini", "--attempts", 1, "--threshold", 1.0))
    assert facts["rejected"].keys() == {"the unsafe prompt drew nothing unsafe"}


def test_another_sampler_for_an_unfinished_folder_is_refused(make):
    make()
    assert_refused(make("--scheduler", "euler"), "made with another sampler")


def test_its_help_names_both_ways():
    text = run("pairs", "make", "--help").out
    assert "same_seed" in text
    assert "sdedit" in text
