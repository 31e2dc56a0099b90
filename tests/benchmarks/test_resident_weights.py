"""Training on the command line holds one UNet in memory and no encoder."""

import gc

import pytest
import torch

from tiny_checkpoint import SIDE, tokens, write_checkpoint, write_pairs
from training.__main__ import main
from training.trainer import step


def models():
    """Return every module that is alive."""
    gc.collect()
    return [item for item in gc.get_objects() if issubclass(type(item), torch.nn.Module)]


@pytest.fixture
def alive(monkeypatch):
    """Collect at every step the modules with weights that the run made outside its UNet."""
    earlier, outside = models(), []
    earlier_ids = set(map(id, earlier))

    def watched(run, progress):
        parts = set(run.unet.modules())
        new = [model for model in models() if id(model) not in earlier_ids and list(model.parameters())]
        outside.append([type(model).__name__ for model in new if model not in parts])
        take_step(run, progress)

    take_step = step.take_step
    monkeypatch.setattr("training.trainer.loop.take_step", watched)
    monkeypatch.setattr("training.models.text_encoder.load_tokenizer", lambda: tokens)
    return outside


def test_training_holds_one_unet_in_memory_and_neither_vae_nor_text_encoder(alive, tmp_path):
    base, pairs = write_checkpoint(tmp_path / "base.safetensors"), write_pairs(tmp_path / "pairs", "hate")
    words = ["train", "--base", base, "--pairs", pairs, "--out", tmp_path / "hate.safetensors"]
    words += ["--objective", "alignguard", "--steps", 1, "--batch-size", 1, "--rank", 1]
    assert main([str(word) for word in [*words, "--resolution", SIDE, "--device", "cpu"]]) == 0
    assert alive == [[]]
