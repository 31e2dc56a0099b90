"""The command `train`: an expert from a checkpoint and pairs, stopped, resumed and refused."""

import weakref

import pytest
import torch

from command_line import FAST, answer_of, assert_never_overwrites, assert_refused, run
from tiny_checkpoint import SIDE, write_pairs
from training.commands import train
from training.commands.options import CommandParser, config_from
from training.config import TrainConfig, preset_values
from training.experts.expert import load_expert
from training.models.base_model import load_base
from training.pairs import load_pairs
from training.pairs.encode import Encoders, encode_pairs
from training.trainer.kept import everyday_of
from training.trainer.train_expert import Destination, Subject, train_expert

pytestmark = pytest.mark.usefixtures("small_vocabulary")
BRIEF = ["--steps", 2, "--batch-size", 2, "--rank", 2]


def train_words(base, pairs, out, *more):
    return ["train", "--base", base, "--pairs", pairs / "hate", "--out", out, *FAST, *BRIEF, *more]


@pytest.fixture(scope="module")
def trained(base, pairs, tmp_path_factory):
    """Return the folder of a complete run, with `e.safetensors` in it, and the outcome of the command."""
    folder = tmp_path_factory.mktemp("trained")
    cache = folder / "cache"
    more = ["--category", "Hate", "--cache", cache, "--json"]
    return folder, run(*train_words(base, pairs, folder / "e.safetensors", *more))


def test_train_writes_an_expert_with_its_settings_and_its_run_folder(trained):
    folder, outcome = trained
    facts = answer_of(outcome)
    assert facts["out"] == str(folder / "e.safetensors")
    assert (facts["steps"], facts["pairs"]["kept"]) == (2, 3)
    assert "train: 100%" in outcome.err
    assert "float32" not in outcome.err  # a pointless warning of diffusers
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
    """Return the file of a run in bf16, the outcome of the command, and the moves of models in it.

    Moves are recorded, because there may be no device but the CPU: class, arguments, and whether each encoder
    was still in memory.
    """
    moves, encoders = [], []
    move, encode, load = torch.nn.Module.to, train.encode_pairs, train.load_base

    def recorded_move(module, *args, **options):
        moves.append((type(module).__name__, args, options, [encoder() is not None for encoder in encoders]))
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


def test_the_unet_moves_to_the_device_in_its_type_after_the_encoders_are_freed(half):
    device = torch.device("cpu")
    assert half[2][:4] == [
        ("AutoencoderTiny", (device,), {}, [True, True]),
        ("CLIPTextModel", (device,), {}, [True, True]),
        "encoded",
        ("UNet2DConditionModel", (), {"device": device, "dtype": torch.bfloat16}, [False, False]),
    ]


def test_the_command_trains_the_same_bytes_as_the_functions_on_a_model_that_was_never_moved(
    tmp_path, base, pairs, half
):
    config = TrainConfig(steps=2, batch_size=2, rank=2, precision="bf16")
    loaded = load_base(base)
    data = encode_pairs(
        load_pairs(pairs / "hate"),
        Encoders(loaded.encode_image, loaded.encode_prompt, loaded.encoder_id),
        resolution=SIDE,
        everyday=everyday_of(config),
    )
    train_expert(
        torch.nn.Module.to(loaded.unet, dtype=torch.bfloat16),
        data,
        loaded.schedule,
        config,
        subject=Subject("hate", loaded.family.name, load_base(base).content_hash),
        destination=Destination(tmp_path / half[0].name),
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
    assert "saved the expert so far as e_partial.safetensors" in outcome.err
    assert "--resume" in outcome.err
    assert outcome.err.splitlines()[-1] == "stopped by Ctrl-C"
    assert not out.exists()
    assert load_expert(out.with_stem("e_partial")).metadata["alignguard.steps"] == "1"
    assert run(*train_words(base, pairs, out, "--resume")).code == 0
    assert out.read_bytes() == (trained[0] / "e.safetensors").read_bytes()


def test_prompts_longer_than_clip_reads_are_counted_in_one_warning(tmp_path, base):
    folder = write_pairs(tmp_path / "p", "hate")
    rows = (folder / "pairs.jsonl").read_text().replace("number 0", "x" * 77)
    (folder / "pairs.jsonl").write_text(rows)
    out = tmp_path / "e.safetensors"
    outcome = run("train", "--base", base, "--pairs", folder, "--out", out, *FAST, *BRIEF)
    assert outcome.code == 0
    assert outcome.err.count("2 prompts are longer than 77 tokens; the rest of each is ignored.") == 1


def test_a_preset_sets_options_and_options_on_the_command_line_win():
    parser = CommandParser("train")
    train.add_arguments(parser)

    def config(*words):
        args = parser.parse_args(["--base", "b", "--pairs", "p", "--out", "o.safetensors", *words])
        return config_from(args, TrainConfig, preset_values(args.preset))

    assert config() == TrainConfig()
    assert config("--preset", "quick") == TrainConfig(steps=60, batch_size=4)
    paper = config("--preset", "paper SDXL", "--steps", "7")
    assert (paper.steps, paper.learning_rate, paper.objective) == (7, 1e-5, "alignguard")
    duo = config("--preset", "DUO SD 1.4", "--rank", "8")
    assert (duo.objective, duo.targets, duo.rank) == ("duo", "self-attention", 8)
    assert run("train", "--preset", "slow").code == 2


def test_a_value_out_of_range_is_named_before_anything_is_read(tmp_path):
    words = ["train", "--base", "b", "--pairs", "p", "--out", tmp_path / "e.safetensors"]
    assert_refused(run(*words, "--steps", 0), "steps must be at least 1, got 0")
    assert_refused(run(*words, "--steps", "many"), "argument --steps: invalid int value: 'many'")
    assert_refused(run(*words, "--objective", "magic"), "magic")
    assert_refused(run(*words, "--resolution", 100), "--resolution: must be a multiple of 8 pixels, got 100")
    assert_refused(run(*words, "--device", "warp"), "device 'warp' cannot be used")


def test_an_output_file_that_exists_is_never_overwritten(tmp_path):
    assert_never_overwrites(tmp_path, "train", "--base", "b", "--pairs", "p")


def test_a_folder_without_pairs_is_refused(tmp_path, base):
    words = ["--pairs", tmp_path, "--out", tmp_path / "e.safetensors"]
    assert_refused(run("train", "--base", base, *words), "has no pairs.jsonl")


def test_a_base_that_is_not_a_checkpoint_is_refused(tmp_path, pairs, experts):
    words = ["train", "--pairs", pairs / "hate", "--out", tmp_path / "e.safetensors"]
    assert_refused(run(*words, "--base", experts[0]), "hate.safetensors is not a checkpoint")


def test_a_category_without_pairs_is_refused_with_the_available_categories(tmp_path, base, pairs):
    words = ["train", "--base", base, "--pairs", pairs / "hate", "--out", tmp_path / "e.safetensors"]
    assert_refused(run(*words, "--category", "shocking"), "its pairs are of: hate")
