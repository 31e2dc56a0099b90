"""Inputs of the commands, written once per session."""

import pytest

from tiny_checkpoint import tokens, write_checkpoint, write_expert, write_pairs


@pytest.fixture(scope="module")
def small_vocabulary():
    """Let commands tokenize for the tiny text encoder."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("training.models.text_encoder.load_tokenizer", lambda: tokens)
        yield


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """The tiny checkpoint."""
    return write_checkpoint(tmp_path_factory.mktemp("base") / "tiny.safetensors")


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """A folder of two pairs folders, `hate` and `violence`."""
    root = tmp_path_factory.mktemp("pairs")
    for category in ("hate", "violence"):
        write_pairs(root / category, category)
    return root


@pytest.fixture(scope="session")
def experts(tmp_path_factory):
    """Files of two random experts for the tiny checkpoint."""
    root = tmp_path_factory.mktemp("experts")
    return [
        write_expert(root / f"{category}.safetensors", category, seed=seed)
        for seed, category in enumerate(("hate", "violence"))
    ]
