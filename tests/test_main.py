"""The command line: what it answers, what it refuses and with which exit code."""

import io
import json
import subprocess
import sys
import weakref
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tiny import random_layers, tiny_unet
from tiny_checkpoint import SIDE, tiny_models, tokens, write_checkpoint, write_pairs
from tiny_tuned import half_unet, lora_of_all_layers, tuned, write_folder, write_single
from training.__main__ import _parser, main
from training.commands import COMMANDS, train
from training.commands.options import config_from
from training.config import ExtractConfig, MergeConfig, TrainConfig, options, preset_values
from training.experts.expert import SafetyExpert, load_expert, save_expert
from training.losses import LOSSES
from training.merging import MERGE_METHODS
from training.models.base_model import load_base
from training.pairs import load_pairs
from training.pairs.encode import Encoders, encode_pairs
from training.trainer.train_expert import train_expert

ROOT = Path(__file__).parents[1]
WORDS = [[name] for name in COMMANDS] + [
    ["pairs", name] for name in ("check", "import-coprov2", "make", "rewrite", "weigh")
]
FAST = ["--resolution", SIDE, "--device", "cpu"]
BRIEF = ["--steps", 2, "--batch-size", 2, "--rank", 2]


class Outcome(NamedTuple):
    """What a command left: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str


def run(*words):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as ended:
            code = ended.code
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True, scope="module")
def _small_vocabulary():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("training.models.text_encoder.load_tokenizer", lambda: tokens)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("base") / "tiny.safetensors")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    for category in ("hate", "violence"):
        write_pairs(root / category, category)
    return root


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    """Return two random experts for the tiny checkpoint."""
    root = tmp_path_factory.mktemp("experts")
    unet = tiny_models()["unet"]
    return [
        save_expert(
            SafetyExpert(random_layers(unet, 2, seed), (category,), "sd15", {}, category),
            root / f"{category}.safetensors",
        )
        for seed, category in enumerate(("hate", "violence"))
    ]


def assert_refused(outcome, said):
    assert outcome.code == 2
    assert outcome.out == ""
    assert said in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err


def answer_of(outcome):
    """Return the one JSON object on stdout."""
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


# help


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_every_command_has_help(words):
    outcome = run(*words, "--help")
    assert outcome.code == 0
    assert f"python -m training {' '.join(words)}" in outcome.out


def test_the_help_names_every_command():
    assert all(name in run("--help").out for name in COMMANDS)


@pytest.mark.parametrize(
    ("command", "config", "registry"),
    [("train", TrainConfig, LOSSES), ("merge", MergeConfig, MERGE_METHODS), ("extract", ExtractConfig, ())],
)
def test_the_help_shows_every_option_of_the_config_and_every_entry_of_the_registry(command, config, registry):
    text = run(command, "--help").out
    for option in options(config):
        assert f"--{option.name.replace('_', '-')}" in text
    assert not registry or f"{{{','.join(registry)}}}" in text


def test_help_that_needs_no_registry_does_not_wait_for_torch():
    code = (
        "import sys\nfrom training.__main__ import main\n"
        "pairs = [['pairs', action] for action in ('check', 'import-coprov2', 'rewrite')]\n"
        "for words in ([], ['mini'], *pairs, ['info'], ['extract']):\n"
        "    try: main([*words, '--help'])\n"
        "    except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL)
    assert done.returncode == 0


# bad input


def test_an_unknown_command_or_option_is_refused_in_one_line():
    assert_refused(run("fly"), "fly")
    assert_refused(run(), "COMMAND")
    outcome = run("info", "x.safetensors", "--colour")
    assert_refused(outcome, "--colour")
    assert len(outcome.err.splitlines()) == 1


def test_a_missing_file_is_named(tmp_path):
    outcome = run("info", tmp_path / "gone.safetensors", "--json")
    assert_refused(outcome, "python -m training info: gone.safetensors does not exist")


def test_a_value_out_of_range_is_named_before_anything_is_read(tmp_path):
    words = ["train", "--base", "b", "--pairs", "p", "--out", tmp_path / "e.safetensors"]
    assert_refused(run(*words, "--steps", 0), "steps must be at least 1, got 0")
    assert_refused(run(*words, "--steps", "many"), "argument --steps: invalid int value: 'many'")
    assert_refused(run(*words, "--objective", "magic"), "magic")
    assert_refused(run(*words, "--resolution", 100), "--resolution: must be a multiple of 8 pixels, got 100")
    assert_refused(run(*words, "--device", "warp"), "device 'warp' cannot be used")


@pytest.mark.parametrize("command", ["train", "merge", "extract"])
def test_an_output_file_that_exists_is_never_overwritten(tmp_path, command):
    out = tmp_path / "kept.safetensors"
    out.write_bytes(b"precious")
    words = {
        "train": ["--base", "b", "--pairs", "p"],
        "merge": ["a.safetensors"],
        "extract": ["--base", "b", "--tuned", "t"],
    }[command]
    assert_refused(run(command, *words, "--out", out), "kept.safetensors already exists")
    assert out.read_bytes() == b"precious"
    assert_refused(run(command, *words, "--out", tmp_path / "e.ckpt"), "must end in .safetensors")


def test_a_folder_without_pairs_is_refused_with_what_it_holds(tmp_path, base):
    (tmp_path / "notes.txt").touch()
    assert_refused(run("pairs", "check", tmp_path), "has no pairs.jsonl; it holds 1 other entries")
    words = ["--pairs", tmp_path, "--out", tmp_path / "e.safetensors"]
    assert_refused(run("train", "--base", base, *words), "has no pairs.jsonl")


def test_a_base_that_is_no_checkpoint_is_refused(tmp_path, pairs, experts):
    words = ["train", "--pairs", pairs / "hate", "--out", tmp_path / "e.safetensors"]
    assert_refused(run(*words, "--base", experts[0]), "hate.safetensors is not a checkpoint")


def test_a_category_without_pairs_is_refused_with_those_there_are(tmp_path, base, pairs):
    words = ["train", "--base", base, "--pairs", pairs / "hate", "--out", tmp_path / "e.safetensors"]
    assert_refused(run(*words, "--category", "shocking"), "its pairs are of: hate")


def test_a_merge_that_must_be_calibrated_says_what_it_needs(tmp_path, experts):
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
        save_expert(SafetyExpert(layers, (), "sdxl", {}, name), tmp_path / f"{name}.safetensors")
        for name in ("a", "b")
    ]
    words = ["--base", base, "--calibration", pairs, "--out", tmp_path / "merged.safetensors"]
    assert_refused(run("merge", *files, *words, *FAST), "was trained for SDXL")


@pytest.mark.parametrize("content", [b"", b"\n  \n", b"\xff\xfe\0"], ids=["empty", "blank", "binary"])
def test_a_calibration_text_without_prompts_is_refused(tmp_path, base, experts, content):
    text = tmp_path / "prompts.txt"
    text.write_bytes(content)
    words = ["--base", base, "--calibration", text, "--out", tmp_path / "merged.safetensors"]
    assert_refused(run("merge", *experts, *words), "prompts.txt cannot be used for calibration")


# work that fails


@pytest.mark.parametrize(
    "error",
    [RuntimeError("training changed nothing\nin 2 steps"), OSError(28, "No space left on device")],
    ids=["run", "disk"],
)
def test_work_that_fails_is_one_line_and_another_exit_code(tmp_path, base, pairs, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(train, "train_expert", fail)
    outcome = run(*train_words(base, pairs, tmp_path / "e.safetensors"))
    assert (outcome.code, outcome.out) == (1, "")
    said = " ".join(str(error).split())
    assert outcome.err.splitlines()[-1] == f"python -m training train: {said}"
    assert "Traceback" not in outcome.err


def test_a_prompt_longer_than_clip_reads_is_warned_of(tmp_path, base):
    folder = write_pairs(tmp_path / "p", "hate")
    rows = (folder / "pairs.jsonl").read_text().replace("number 0", "x" * 77)
    (folder / "pairs.jsonl").write_text(rows)
    out = tmp_path / "e.safetensors"
    outcome = run("train", "--base", base, "--pairs", folder, "--out", out, *FAST, *BRIEF)
    assert outcome.code == 0
    assert outcome.err.count("2 prompts are longer than 77 tokens; their end is not used.") == 1


# info and pairs check


def test_info_tells_people_and_machines_about_an_expert(experts):
    text = run("info", experts[0]).out
    assert "categories: hate" in text
    assert "base model: SD 1.5" in text
    facts = answer_of(run("info", experts[0], "--json"))
    expert = load_expert(experts[0])
    assert facts["categories"] == ["hate"]
    assert (facts["family"], facts["rank"], facts["layers"]) == ("sd15", 2, len(expert.layers))
    assert facts["content_hash"] == expert.content_hash
    assert facts["metadata"]["alignguard.family"] == "sd15"


def test_pairs_check_counts_and_names_what_it_drops(tmp_path):
    folder = write_pairs(tmp_path / "p", "hate")
    (folder / "s_1.png").unlink()
    assert "an image file is missing: 1 (hate 1)" in run("pairs", "check", folder).out
    facts = answer_of(run("pairs", "check", folder, "--json"))
    assert (facts["kept"], facts["categories"]) == (2, {"hate": 2})
    assert facts["dropped"] == {"an image file is missing": ["hate 1"]}


# mini, train and merge


def test_mini_shows_its_stages_and_answers_with_the_paths(tmp_path, monkeypatch):
    def build(out, *, on_progress):
        for what in ("checkpoint", "pairs"):
            on_progress(what, 0, 2)
            on_progress(what, 2, 2)
        return {"checkpoint": out / "m.safetensors", "pairs": out / "pairs"}

    monkeypatch.setattr("training.mini.build.build_mini", build)  # the real one draws for a minute
    outcome = run("mini", "--out", tmp_path, "--json")
    assert answer_of(outcome) == {
        "checkpoint": str(tmp_path / "m.safetensors"),
        "pairs": str(tmp_path / "pairs"),
    }
    assert "pairs: 100%" in outcome.err


def train_words(base, pairs, out, *more):
    return ["train", "--base", base, "--pairs", pairs / "hate", "--out", out, *FAST, *BRIEF, *more]


@pytest.fixture(scope="module")
def trained(base, pairs, tmp_path_factory):
    """Return the folder of a whole run, `e.safetensors` in it, and what the command said."""
    folder = tmp_path_factory.mktemp("trained")
    cache = folder / "cache"
    words = train_words(
        base, pairs, folder / "e.safetensors", "--category", "Hate", "--cache", cache, "--json"
    )
    return folder, run(*words)


def test_train_writes_an_expert_and_what_it_was_made_of(trained):
    folder, outcome = trained
    facts = answer_of(outcome)
    assert facts["out"] == str(folder / "e.safetensors")
    assert (facts["steps"], facts["pairs"]["kept"]) == (2, 3)
    assert "train: 100%" in outcome.err
    assert "float32" not in outcome.err  # a warning of diffusers that would be about nothing
    metadata = load_expert(folder / "e.safetensors").metadata
    assert facts["expert"]["metadata"] == metadata
    assert metadata["alignguard.categories"] == "hate"
    assert metadata["alignguard.steps"] == "2"
    assert metadata["modelspec.resolution"] == f"{SIDE}x{SIDE}"
    assert len(metadata["alignguard.base_hash"]) == 64
    assert (folder / "e_run" / "metrics.jsonl").read_text().count("\n") == 2
    assert (folder / "e_run" / "expert.safetensors").read_bytes() == (folder / "e.safetensors").read_bytes()
    assert any((folder / "cache").iterdir())


@pytest.fixture(scope="module")
def half(base, pairs, tmp_path_factory):
    """Return the file of a run in bf16, what the command said, and the moves of models in it.

    Moves are recorded, as a device other than the CPU may not be there: class, arguments, and which
    encoders were still in memory.
    """
    moves, encoders = [], []
    move, encode, load = torch.nn.Module.to, train.encode_pairs, train.load_base

    def recorded_move(module, *args, **options):
        moves.append((type(module).__name__, args, options, [each() is not None for each in encoders]))
        return move(module, *args, **options)

    def recorded_encode(*args, **options):
        data = encode(*args, **options)
        moves.append("encoded")
        return data

    out = tmp_path_factory.mktemp("half") / "new" / "half.safetensors"
    with pytest.MonkeyPatch.context() as patched:

        def recorded_load(path):
            loaded = load(path)
            encoders.extend(map(weakref.ref, (loaded.autoencoder.model, *loaded.text_encoder.models)))
            patched.setattr(torch.nn.Module, "to", recorded_move)
            return loaded

        patched.setattr(train, "load_base", recorded_load)
        patched.setattr(train, "encode_pairs", recorded_encode)
        return out, run(*train_words(base, pairs, out, "--precision", "bf16")), moves


def test_half_precision_keeps_the_base_hash_and_the_category_comes_from_the_pairs(half, trained):
    out, outcome, _ = half
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-1] == f"saved as {out}"
    half_expert, full = load_expert(out), load_expert(trained[0] / "e.safetensors")
    assert half_expert.categories == ("hate",)
    assert half_expert.metadata["alignguard.base_hash"] == full.metadata["alignguard.base_hash"]
    assert half_expert.content_hash != full.content_hash


def test_the_unet_goes_to_the_device_when_the_encoders_are_gone_and_at_once_in_its_type(half):
    device = torch.device("cpu")
    assert half[2][:4] == [
        ("AutoencoderTiny", (device,), {}, [True, True]),
        ("CLIPTextModel", (device,), {}, [True, True]),
        "encoded",
        ("UNet2DConditionModel", (), {"device": device, "dtype": torch.bfloat16}, [False, False]),
    ]


def test_the_command_trains_what_the_functions_train_on_a_model_that_was_never_moved(
    tmp_path, base, pairs, half
):
    loaded = load_base(base)
    own = load_pairs(pairs / "hate")
    data = encode_pairs(
        own,
        Encoders(loaded.encode_image, loaded.encode_prompt, loaded.encoder_id),
        resolution=SIDE,
    )
    train_expert(
        torch.nn.Module.to(loaded.unet, dtype=torch.bfloat16),
        data,
        loaded.schedule,
        TrainConfig(steps=2, batch_size=2, rank=2, precision="bf16"),
        category="hate",
        family=loaded.family.name,
        base_hash=load_base(base).content_hash,
        out=tmp_path / half[0].name,
    )
    assert (tmp_path / half[0].name).read_bytes() == half[0].read_bytes()


def test_a_run_stopped_by_ctrl_c_keeps_what_it_has_and_resumes_to_the_same_bytes(
    tmp_path, base, pairs, trained, monkeypatch
):
    class Interrupted(train.ProgressBar):
        def __call__(self, done, total, loss=None):
            if loss is not None:
                raise KeyboardInterrupt
            super().__call__(done, total)

    out = tmp_path / "e.safetensors"
    with monkeypatch.context() as patched:
        patched.setattr(train, "ProgressBar", Interrupted)
        outcome = run(*train_words(base, pairs, out))
    assert (outcome.code, outcome.out) == (130, "")
    assert "kept as e_partial.safetensors" in outcome.err
    assert "--resume" in outcome.err
    assert outcome.err.splitlines()[-1] == "stopped by Ctrl-C"
    assert not out.exists()
    assert load_expert(out.with_stem("e_partial")).metadata["alignguard.steps"] == "1"
    assert run(*train_words(base, pairs, out, "--resume")).code == 0
    assert out.read_bytes() == (trained[0] / "e.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("method", "source", "inputs"),
    [
        ("co_merge", "folder of folders", "4"),  # two prompts of each of two categories
        ("co_merge", "text", "2"),  # the line the hard rule forbids is not used
        ("regmean", "folder of folders", "6"),  # and two safe ones
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


def test_a_merge_without_calibration_takes_strengths_in_the_order_of_the_experts(tmp_path, experts):
    out = tmp_path / "merged.safetensors"
    words = ["--method", "concat", "--strength", 0, "--strength", 0.5, "--out", out]
    outcome = run("merge", *experts, *words)
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == f"saved as {out}"
    merged, own = load_expert(out), load_expert(experts[1])
    for module, layer in merged.layers.items():
        assert torch.allclose(layer.delta(), 0.5 * own.layers[module].delta(), atol=1e-6)


@pytest.mark.parametrize("method", ["co_merge", "dare_ties", "regmean", "svd"])
def test_a_merge_is_repeated_from_what_its_file_says_to_the_same_bytes(
    tmp_path, base, pairs, experts, method
):
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


# extract


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


def test_a_preset_sets_options_and_typed_ones_win():
    def config(*words):
        args = _parser(["train"]).parse_args(
            ["train", "--base", "b", "--pairs", "p", "--out", "o.safetensors", *words]
        )
        return config_from(args, TrainConfig, preset_values(args.preset))

    assert config() == TrainConfig()
    assert config("--preset", "quick") == TrainConfig(steps=60, batch_size=4)
    paper = config("--preset", "paper SDXL", "--steps", "7")
    assert (paper.steps, paper.learning_rate, paper.objective) == (7, 1e-5, "alignguard")
    assert run("train", "--preset", "slow").code == 2
