"""The action `pairs move`."""

from command_line import answer_of, assert_refused, run
from tiny_checkpoint import write_pairs


def test_move_says_what_is_where_and_refuses_a_taken_name(tmp_path):
    source, target = write_pairs(tmp_path / "a folder", "hate"), tmp_path / "kept" / "hate"
    assert answer_of(run("pairs", "move", source, target, "--json"))["moved"] == {str(source): str(target)}
    assert (target / "pairs.jsonl").is_file()
    assert f"{target} is now {source}" in run("pairs", "move", target, source).out
    assert_refused(run("pairs", "move", source, tmp_path), "exists")
