"""The command `extract`: the expert that was merged into a tuned model."""

from command_line import assert_never_overwrites, assert_refused, run
from tiny_tuned import half_unet, lora_of_all_layers, tuned, write_folder, write_single
from training.experts.expert import load_expert


def test_extract_turns_a_tuned_model_into_the_expert_that_was_merged_into_it(tmp_path):
    state = half_unet()
    base = write_single(tmp_path / "base.safetensors", state)
    tuned_folder = write_folder(tmp_path / "tuned", tuned(state, lora_of_all_layers(state, rank=2)))
    out = tmp_path / "e.safetensors"
    words = ["--base", base, "--tuned", tuned_folder, "--category", "Hate, Sexual", "--rank", 2]
    outcome = run("extract", *words, "--out", out)
    assert outcome.code == 0, outcome.err
    assert "extracted from: tuned, tuned from base.safetensors" in outcome.out
    assert "extract: 100%" in outcome.err
    assert run("info", out).out.splitlines()[1:] == outcome.out.splitlines()[1:-1]  # but for name and path
    expert = load_expert(out)
    assert (expert.categories, expert.rank) == (("hate", "sexual"), 2)
    assert_refused(run("extract", *words, "--out", out), "e.safetensors already exists")
    same = ["--base", base, "--tuned", base, "--out", tmp_path / "f.safetensors"]
    assert_refused(run("extract", *same), "hold equal weights")


def test_an_output_file_that_exists_is_never_overwritten(tmp_path):
    assert_never_overwrites(tmp_path, "extract", "--base", "b", "--tuned", "t")


def test_a_name_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    words = ["--base", "gone", "--tuned", "gone"]
    for out in (tmp_path / ("a" * 250 + ".safetensors"), tmp_path / "file" / "e.safetensors"):
        outcome = run("extract", *words, "--out", out)
        assert_refused(outcome, "cannot be written to")
