"""The command `judge`: a judge trained and measured from the command line, and used by `pairs weigh`."""

import json
import shutil

import pytest

from command_line import answer_of, assert_refused, run
from tiny_clip import write_clip
from tiny_costs import write_bars

FEW = ("--steps", 2, "--folds", 2)


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bars")
    write_bars(folder, 6)
    return folder


@pytest.fixture(scope="module")
def judges(base, bars, tmp_path_factory):
    """A folder of judges, whose safety_cost reads the VAE of the tiny checkpoint, and the answer."""
    root = tmp_path_factory.mktemp("judges")
    out = root / "safety_cost.safetensors"
    return root, run("judge", "train", "--base", base, "--pairs", bars, "--out", out, *FEW, "--json")


def test_a_judge_is_trained_on_the_vae_of_a_base_and_says_what_it_measured(judges):
    facts = answer_of(judges[1])
    assert (facts["pairs"], facts["scenes"], facts["encoder"]) == (6, 6, "vae")
    assert facts["categories"] == ["hate"]
    assert facts["held_out"]["order"]["n"] == 6
    assert facts["held_out"]["neutral"] is None


def test_the_pairs_of_the_training_are_measured_held_out(judges, base, bars):
    path = judges[0] / "safety_cost.safetensors"
    facts = answer_of(run("judge", "test", path, "--base", base, "--pairs", bars, "--json"))
    assert facts["order"] == answer_of(judges[1])["held_out"]["order"]


def test_several_folders_are_one_set_of_pairs_and_clip_vision_is_read_in_place_of_a_vae(
    bars, pairs, tmp_path
):
    write_clip(tmp_path / "clip")
    sources = ("--pairs", bars, "--pairs", pairs / "violence")
    out = tmp_path / "judge.safetensors"
    clip = ("--clip-vision", tmp_path / "clip")
    facts = answer_of(run("judge", "train", *clip, *sources, "--out", out, *FEW, "--json"))
    assert (facts["pairs"], facts["encoder"]) == (9, "clip_vision")
    assert facts["categories"] == ["hate", "violence"]


def test_pairs_weigh_takes_it_as_a_judge_with_the_base_that_it_reads(judges, base, bars, tmp_path):
    folder = shutil.copytree(bars, tmp_path / "bars")
    words = ("pairs", "weigh", folder, "--judge", "safety_cost", "--judge-heads", judges[0])
    assert answer_of(run(*words, "--base", base, "--json"))["scored"] == 6
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    assert all("preset vae" in row["scores"]["judge"] for row in rows)
    assert_refused(run(*words, "--json"), "give its checkpoint with --base")


def test_another_vae_is_refused(judges, base, bars, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(base)
    encoder = {name: -tensor for name, tensor in tensors.items() if "taesd_encoder" in name}
    save_file({**tensors, **encoder}, tmp_path / "other.safetensors")
    words = ("judge", "test", judges[0] / "safety_cost.safetensors", "--pairs", bars)
    outcome = run(*words, "--base", tmp_path / "other.safetensors", "--json")
    assert_refused(outcome, "trained on another vae than this one")


@pytest.mark.parametrize("words", [(), ("--base", "b", "--clip-vision", "c")])
def test_one_encoder_must_be_named(bars, tmp_path, words):
    outcome = run("judge", "train", "--pairs", bars, "--out", tmp_path / "j.safetensors", *words, "--json")
    assert_refused(outcome, "Give one of --base and --clip-vision")


def test_too_few_scenes_are_refused_and_nothing_is_written(base, pairs, tmp_path):
    words = ("--base", base, "--pairs", pairs / "hate", "--out", tmp_path / "j.safetensors", "--json")
    assert_refused(run("judge", "train", *words), "got 3 in 3 pairs")
    assert not (tmp_path / "j.safetensors").exists()


def test_pairs_weigh_writes_costs_without_another_judge(judges, base, bars, tmp_path):
    folder = shutil.copytree(bars, tmp_path / "bars")
    file = judges[0] / "safety_cost.safetensors"
    facts = answer_of(run("pairs", "weigh", folder, "--cost", file, "--base", base, "--json"))
    assert facts["scored"] == 6
    assert facts["judge"] is None
    assert facts["measured"][0].startswith("cost: weights ")
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    assert all(row["scores"].keys() == {"cost_unsafe", "cost_safe"} for row in rows)


def test_pairs_weigh_rates_pictures_by_a_whole_clip(bars, tmp_path, small_vocabulary, monkeypatch):
    write_clip(tmp_path / "clip")
    folder = shutil.copytree(bars, tmp_path / "bars")
    seen = []
    score = lambda picture, prompt: seen.append(prompt) or 20.0  # noqa: E731 - the CLIP's words are not ours
    monkeypatch.setattr("training.evaluation.measures.clip_score.load_clip_score", lambda *_: score)
    words = ("pairs", "weigh", folder, "--quality", "clip_score", "--json")
    assert answer_of(run(*words, "--clip-vision", tmp_path / "clip"))["scored"] == 6
    assert len(seen) == 12
    assert_refused(run(*words), "needs a whole CLIP")


def test_pairs_weigh_without_anything_to_measure_is_refused(bars):
    assert_refused(run("pairs", "weigh", bars, "--json"), "Give --judge, --cost or --quality")
