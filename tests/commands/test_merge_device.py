"""What the command `merge` holds on the device, told by the moves: another device may not be here."""

import pytest
import torch
from stressed import write_files
from tiny import random_layers
from tiny_checkpoint import SIDE, tiny_models, tokens, write_pairs

from training.__main__ import main
from training.commands import merge
from training.expert import SafetyExpert, save_expert
from training.families.base_model import BaseModel

DEVICE = torch.device("cpu", 0)  # stands for a GPU: not equal to `cpu`, but computes here
ENCODERS = {"AutoencoderTiny", "CLIPTextModel"}


@pytest.fixture
def resident(monkeypatch):
    """Tell which models are on the device whenever one is used: what is done -> names, each time."""
    where, seen = {}, {}
    move = torch.nn.Module.to

    def moved(module, device, *args, **options):
        where[type(module).__name__] = device
        return move(module, device, *args, **options)

    def noting(what, call):
        def noted(*args, **options):
            seen.setdefault(what, []).append({name for name, at in where.items() if at == DEVICE})
            return call(*args, **options)

        return noted

    monkeypatch.setattr(torch.nn.Module, "to", moved)
    monkeypatch.setattr(merge, "device_of", lambda name: DEVICE)
    for what in ("encode_prompt", "encode_image"):
        monkeypatch.setattr(BaseModel, what, noting(what, getattr(BaseModel, what)))
    monkeypatch.setattr(merge, "collect_statistics", noting("calibrate", merge.collect_statistics))
    return seen


def test_the_device_never_holds_the_unet_beside_the_encoders(tmp_path, monkeypatch, resident):
    monkeypatch.setattr("training.families.text_encoder.load_tokenizer", lambda: tokens)
    files = write_files(tmp_path)
    layers = random_layers(tiny_models()["unet"], 2, 2)
    other = save_expert(SafetyExpert(layers, ("violence",), "sd15", {}, "b"), tmp_path / "b.safetensors")
    for category in ("hate", "violence"):
        write_pairs(tmp_path / "pairs" / category, category)
    given = ["--base", files / "tiny.safetensors", "--calibration", tmp_path / "pairs", "--timesteps", 1]
    words = ["merge", files / "hate.safetensors", other, *given, "--resolution", SIDE]
    assert main([str(word) for word in (*words, "--out", tmp_path / "merged.safetensors")]) == 0
    assert resident["encode_prompt"]
    assert resident["encode_image"]
    assert all(names == ENCODERS for names in resident["encode_prompt"] + resident["encode_image"])
    assert resident["calibrate"] == [{"UNet2DConditionModel"}]
