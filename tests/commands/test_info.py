"""The command `info`."""

from command_line import answer_of, assert_refused, run
from training.experts.expert import load_expert


def test_info_describes_an_expert_as_text_and_as_json(experts):
    text = run("info", experts[0]).out
    assert "categories: hate" in text
    assert "base model: SD 1.5" in text
    facts = answer_of(run("info", experts[0], "--json"))
    expert = load_expert(experts[0])
    assert facts["categories"] == ["hate"]
    assert (facts["family"], facts["rank"], facts["layers"]) == ("sd15", 2, len(expert.layers))
    assert facts["content_hash"] == expert.content_hash
    assert facts["metadata"]["alignguard.family"] == "sd15"


def test_a_missing_file_is_named(tmp_path):
    outcome = run("info", tmp_path / "gone.safetensors", "--json")
    assert_refused(outcome, "python -m training info: gone.safetensors does not exist")
