"""The command `merge`: methods, calibration, and merges repeated from their own metadata."""

import json

import pytest
import torch

from builders import expert_of, write_rows
from command_line import FAST, answer_of, assert_never_overwrites, assert_refused, run
from tiny import random_layers, tiny_unet
from tiny_checkpoint import write_pairs
from training.config import MergeConfig, options
from training.experts.expert import load_expert, save_expert
from training.merging import MERGE_METHODS
from training.models.base_model import load_base

pytestmark = pytest.mark.usefixtures("small_vocabulary")


EVERYDAY = (
    "8 everyday prompts and 8 sentences of the pairs with everyday words and 2 safe prompts of the pairs"
)


@pytest.mark.parametrize(
    ("method", "source", "inputs"),
    [
        ("co_merge", "folder of folders", "4"),  # two prompts from both of the categories
        ("co_merge", "text", "2"),  # the line the hard rule forbids is not used
        ("regmean", "folder of folders", "22"),  # 8 everyday prompts, as many sentences, 2 safe prompts
        ("regmean", "text by category", "3"),
    ],
)
def test_a_merge_takes_calibration_from_pairs_and_from_text(
    tmp_path, base, pairs, experts, method, source, inputs
):
    text, named = tmp_path / "prompts.txt", tmp_path / "named.txt"
    text.write_text("a skull\n\na padlock\nnude toddler\n", encoding="utf-8")
    named.write_text("hate: a skull\nviolence: a sword\nneutral: a tree\n", encoding="utf-8")
    calibration = {"text": text, "text by category": named, "folder of folders": pairs}[source]
    out = tmp_path / "merged.safetensors"
    words = ["--base", base, "--calibration", calibration, "--out", out, *FAST, "--json"]
    outcome = run(
        "merge", *experts, *words, "--method", method, "--timesteps", 1, "--prompts-per-category", 2
    )
    facts = answer_of(outcome)
    assert facts["expert"]["categories"] == ["hate", "violence"]
    metadata = load_expert(out).metadata
    assert metadata["alignguard.method"] == method
    assert metadata["alignguard.calibration_inputs"] == inputs
    has_pictures = source == "folder of folders"
    assert (metadata["alignguard.calibration_source"] == "pictures") == has_pictures
    assert ("1 lines of prompts.txt were dropped" in outcome.err) == (source == "text")


@pytest.mark.parametrize(
    ("source", "neutral"),
    [
        ("pairs", EVERYDAY),
        ("pairs with neutral.jsonl", f"1 prompt of neutral.jsonl and {EVERYDAY}"),
        ("text", "8 everyday prompts"),
        ("text with neutral lines", "1 neutral line of the text"),
    ],
)
def test_regmean_says_which_neutral_inputs_it_had(tmp_path, base, experts, source, neutral):
    calibration = tmp_path / "calibration"
    if source.startswith("pairs"):
        for category in ("hate", "violence"):
            write_pairs(calibration / category, category)
        if source != "pairs":
            row = {"id": "n", "prompt": "a tree", "image": "s_0.png"}
            write_rows(calibration / "hate" / "neutral.jsonl", [row])
    else:
        lines = "hate: a skull\nviolence: a sword\n" + "neutral: a tree\n" * (source != "text")
        calibration.write_text(lines, encoding="utf-8")
    out = tmp_path / "merged.safetensors"
    words = ["--base", base, "--calibration", calibration, "--out", out, *FAST]
    words += ["--method", "regmean", "--timesteps", 1, "--prompts-per-category", 2]
    shown = run("merge", *experts, *words)
    assert f"neutral inputs of the calibration: {neutral}" in shown.out.splitlines(), shown.err
    assert load_expert(out).metadata["alignguard.calibration_neutral"] == neutral
    out.unlink()
    facts = answer_of(run("merge", *experts, *words, "--json"))
    assert facts["expert"]["metadata"]["alignguard.calibration_neutral"] == neutral


def test_a_merge_without_calibration_takes_strengths_in_the_order_of_the_experts(tmp_path, experts):
    out = tmp_path / "merged.safetensors"
    words = ["--method", "concat", "--strength", 0, "--strength", 0.5, "--out", out]
    outcome = run("merge", *experts, *words)
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == f"saved as {out}"
    merged, member = load_expert(out), load_expert(experts[1])
    for module, layer in merged.layers.items():
        assert torch.allclose(layer.delta(), 0.5 * member.layers[module].delta(), atol=1e-6)


@pytest.mark.parametrize("method", ["co_merge", "dare_ties", "regmean", "svd"])
def test_a_merge_can_be_repeated_from_its_metadata_to_the_same_bytes(tmp_path, base, pairs, experts, method):
    settings = ["--method", method, "--seed", 4, "--output-rank", 3, "--density", 0.4, "--ridge", 0.02]
    settings += ["--neutral-weight", 0.5]
    settings += ["--timesteps", 2, "--prompts-per-category", 2, "--normalize", "--level", "rank neuron"]
    words = [*experts, "--strength", 1, "--strength", 0.5, *FAST]
    calibrated = MERGE_METHODS[method].collector
    words += ["--base", base, "--calibration", pairs] if calibrated else []
    first, again = tmp_path / "first.safetensors", tmp_path / "again.safetensors"
    assert run("merge", *words, *settings, "--out", first).code == 0

    facts = {key.removeprefix("alignguard."): text for key, text in load_expert(first).metadata.items()}
    files = {load_expert(path).content_hash: path for path in sorted(experts[0].parent.glob("*"))}
    members = json.loads(facts["members"])
    assert all(files[member["hash"]].name == member["name"] for member in members)
    repeated = [files[member["hash"]] for member in members]
    for member in members:
        repeated += ["--strength", member["strength"]]
    for option in options(MergeConfig):
        if option.type is bool and option.name in facts:
            repeated.append(f"--{'no-' * (facts[option.name] == 'false')}{option.name}")
        elif option.name in facts:
            repeated += [f"--{option.name.replace('_', '-')}", facts[option.name]]
    if calibrated:
        side = int(facts["calibration_latents"].split("x")[1])
        repeated += ["--base", base, "--calibration", pairs, "--resolution", 8 * side, "--device", "cpu"]
        assert facts["calibration_base_hash"] == load_base(base).content_hash
    outcome = run("merge", *repeated, "--out", again)
    assert outcome.code == 0, outcome.err
    assert again.read_bytes() == first.read_bytes()


def test_an_output_file_that_exists_is_never_overwritten(tmp_path):
    assert_never_overwrites(tmp_path, "merge", "a.safetensors")


def test_a_merge_that_needs_calibration_says_what_is_missing(tmp_path, experts):
    out = tmp_path / "merged.safetensors"
    assert_refused(run("merge", *experts, "--out", out), "--base and --calibration")
    assert not out.exists()


def test_a_merge_refuses_wrong_strengths(tmp_path, experts):
    words = ["merge", *experts, "--method", "average", "--out", tmp_path / "merged.safetensors"]
    assert_refused(run(*words, "--strength", 1), "one per expert, got 1 for 2 experts")
    assert_refused(run(*words, "--strength", 1, "--strength", -1), "must be between 0 and 2, got -1")


def test_a_merge_refuses_experts_of_another_model(tmp_path, base, pairs):
    layers = random_layers(tiny_unet(width=2048))
    files = [
        save_expert(expert_of(layers, family="sdxl"), tmp_path / f"{name}.safetensors") for name in ("a", "b")
    ]
    words = ["--base", base, "--calibration", pairs, "--out", tmp_path / "merged.safetensors"]
    assert_refused(run("merge", *files, *words, *FAST), "was trained for SDXL")


@pytest.mark.parametrize("content", [b"", b"\n  \n", b"\xff\xfe\0"], ids=["empty", "blank", "binary"])
def test_a_calibration_text_without_prompts_is_refused(tmp_path, base, experts, content):
    text = tmp_path / "prompts.txt"
    text.write_bytes(content)
    words = ["--base", base, "--calibration", text, "--out", tmp_path / "merged.safetensors"]
    assert_refused(run("merge", *experts, *words), "prompts.txt cannot be used for calibration")
