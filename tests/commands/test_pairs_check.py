"""The action `pairs check`."""

from command_line import answer_of, assert_refused, run
from tiny_checkpoint import write_pairs


def test_check_counts_and_names_what_it_drops(tmp_path):
    folder = write_pairs(tmp_path / "p", "hate")
    (folder / "s_1.png").unlink()
    assert "an image file is missing: 1 (hate 1)" in run("pairs", "check", folder).out
    facts = answer_of(run("pairs", "check", folder, "--json"))
    assert (facts["kept"], facts["categories"]) == (2, {"hate": 2})
    assert facts["dropped"] == {"an image file is missing": ["hate 1"]}


def test_a_folder_without_pairs_is_refused_with_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").touch()
    assert_refused(run("pairs", "check", tmp_path), "has no pairs.jsonl; it holds 1 other entries")
