"""What is in memory while the command line trains: one UNet, and nothing that encodes."""

import gc

import pytest
import torch

from tiny_checkpoint import SIDE, tokens, write_checkpoint, write_pairs
from training.__main__ import main
from training.trainer import step


def models():
    """Return every module that is alive."""
    gc.collect()
    return [each for each in gc.get_objects() if issubclass(type(each), torch.nn.Module)]


@pytest.fixture
def alive(monkeypatch):
    """Collect, at every step, the modules with weights that the run made and that are no part of its UNet."""
    earlier, found = models(), []
    known = set(map(id, earlier))

    def watched(run, progress):
        parts = set(run.unet.modules())
        new = [each for each in models() if id(each) not in known and list(each.parameters())]
        found.append([type(each).__name__ for each in new if each not in parts])
        take_step(run, progress)

    take_step = step.take_step
    monkeypatch.setattr("training.trainer.loop.take_step", watched)
    monkeypatch.setattr("training.models.text_encoder.load_tokenizer", lambda: tokens)
    return found


def test_one_unet_is_in_memory_while_training_and_neither_vae_nor_text_encoder(alive, tmp_path):
    base, pairs = write_checkpoint(tmp_path / "base.safetensors"), write_pairs(tmp_path / "pairs", "hate")
    words = ["train", "--base", base, "--pairs", pairs, "--out", tmp_path / "hate.safetensors"]
    words += ["--objective", "alignguard", "--steps", 1, "--batch-size", 1, "--rank", 1]
    assert main([str(word) for word in [*words, "--resolution", SIDE, "--device", "cpu"]]) == 0
    assert alive == [[]]
