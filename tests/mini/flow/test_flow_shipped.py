"""The mini flow's weights: small, versioned, and good enough to draw what a prompt says."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from training.mini import shipped
from training.mini.flow import DEPTH, HEAD
from training.mini.flow.shipped import FLOW
from training.mini.judge import share_shown
from training.mini.scenes import ALL_SCENES

LIMIT_BYTES = 12_000_000


def test_all_weights_together_are_small():
    assert 0 < sum(path.stat().st_size for path in FLOW.folder.iterdir()) <= LIMIT_BYTES


def test_the_width_is_what_hosts_compute_from_the_depth():
    transformer = FLOW.load_transformer()
    assert len(transformer.transformer_blocks) == DEPTH
    assert transformer.context_embedder.weight.shape == (HEAD * DEPTH, 768)


def test_a_missing_transformer_is_named_with_the_command_that_makes_it(tmp_path):
    empty = replace(FLOW, folder=tmp_path)
    message = r"weights of the flow world are not complete: .*transformer\.safetensors is missing.*mini\.flow"
    for needs_transformer in (empty.load_transformer, empty.version):
        with pytest.raises(FileNotFoundError, match=message):
            needs_transformer()


def test_the_version_follows_the_weights(tmp_path):
    weights, versions = replace(FLOW, folder=tmp_path), set()
    for value in (0.0, 1.0):
        save_file({"x": torch.full((1,), value)}, tmp_path / "transformer.safetensors")
        versions.add(weights.version())
    assert len(versions | {shipped.SMALL.version()}) == 3


@pytest.mark.slow
def test_the_flow_draws_what_the_prompt_says():
    scenes = ALL_SCENES[::3]  # every icon, every ground, 100 scenes
    prompts = [scene.prompt() for scene in scenes]
    pictures = FLOW.new_draw(["", *prompts])(prompts, range(len(prompts)))
    assert share_shown(FLOW.load_judge().look(pictures), scenes) >= 0.95
