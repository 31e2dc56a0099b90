"""Which models commands hold on the device, seen from the moves: there may be no second device here."""

import importlib

import pytest
import torch

from stressed import write_files
from tiny_checkpoint import SIDE, tokens, write_expert, write_pairs
from training.__main__ import main
from training.commands import evaluate, merge, pairs_making
from training.commands.stress import parts as stress_parts
from training.models.base_model import BaseModel
from training.models.diffusers_draw import DiffusersDraw

DEVICE = torch.device("cpu", 0)  # stands for a GPU: not equal to `cpu`, but computes here
UNET, AUTOENCODER, TEXT_ENCODER = MODELS = ("UNet2DConditionModel", "AutoencoderTiny", "CLIPTextModel")


@pytest.fixture
def resident(monkeypatch):
    """Record which models are on the device at every use: kind of use -> names, each time."""
    where, seen = {}, {}
    move = torch.nn.Module.to

    def moved(module, device, *args, **options):
        where[type(module).__name__] = device
        return move(module, device, *args, **options)

    def noting(use, call):
        def noted(*args, **options):
            seen.setdefault(use, []).append({name for name in MODELS if where.get(name) == DEVICE})
            return call(*args, **options)

        return noted

    monkeypatch.setattr(torch.nn.Module, "to", moved)
    for command in (evaluate, merge, pairs_making, stress_parts):
        monkeypatch.setattr(command, "device_of", lambda name: DEVICE)
    monkeypatch.setattr("training.models.text_encoder.load_tokenizer", lambda: tokens)
    for name in ("encode_prompt", "encode_image"):
        monkeypatch.setattr(BaseModel, name, noting(name, getattr(BaseModel, name)))
    monkeypatch.setattr(merge, "collect_statistics", noting("calibrate", merge.collect_statistics))
    monkeypatch.setattr(DiffusersDraw, "__call__", noting("draw", DiffusersDraw.__call__))
    return seen


def run(*words):
    assert main([str(word) for word in words]) == 0


def test_merge_never_holds_the_unet_beside_the_encoders(tmp_path, resident):
    files = write_files(tmp_path)
    violence = write_expert(tmp_path / "b.safetensors", "violence", seed=2)
    for category in ("hate", "violence"):
        write_pairs(tmp_path / "pairs" / category, category)
    calibration = ["--calibration", tmp_path / "pairs", "--timesteps", 1, "--resolution", SIDE]
    words = ["merge", files / "hate.safetensors", violence, "--base", files / "tiny.safetensors"]
    run(*words, *calibration, "--out", tmp_path / "merged.safetensors")
    assert resident["encode_prompt"]
    assert resident["encode_image"]
    encoders = {AUTOENCODER, TEXT_ENCODER}
    assert all(names == encoders for names in resident["encode_prompt"] + resident["encode_image"])
    assert resident["calibrate"] == [{UNET}]


@pytest.mark.parametrize("command", ["evaluate", "pairs make", "stress curve"])
def test_the_models_that_draw_are_never_held_beside_the_text_encoder(
    tmp_path, monkeypatch, resident, command
):
    for name in ("CHUNK", "CHUNKS_AHEAD"):  # one prompt at a time, so that the models move back too
        monkeypatch.setattr(f"training.evaluation.benchmark.run.{name}", 1)
    monkeypatch.setattr(importlib.import_module("training.making.make_pairs"), "AHEAD", 1)  # not the function
    files = write_files(tmp_path)
    (files / "pairs.txt").write_text("bad one => good one\nbad two => good two\n")
    words = {
        "evaluate": ["--prompts", files / "three.csv", "--expert", files / "hate.safetensors"],
        "pairs make": ["--prompts", files / "pairs.txt", "--category", "hate", "--way", "sdedit"],
        "stress curve": ["--prompts", files / "three.csv", "--concept", files / "concept.txt", "--eta", 1],
    }[command]
    judged = [] if command == "pairs make" else ["--judge", "mini"]
    fast = ["--resolution", SIDE, "--steps", 2, "--out", files / "out"]
    run(*command.split(), "--base", files / "tiny.safetensors", *words, *judged, *fast)
    assert resident["encode_prompt"]
    assert all(names == {TEXT_ENCODER} for names in resident["encode_prompt"])
    assert resident["draw"]
    assert all(names == {UNET, AUTOENCODER} for names in resident["draw"])
