"""Experts are merged layer by layer from their files: memory holds the result and a few layers."""

from contextlib import ExitStack

import pytest
import torch
from tensor_bytes import LiveBytes

from training.config import MergeConfig
from training.expert import SafetyExpert, load_expert, open_expert, save_expert
from training.low_rank import LowRank
from training.merging import merge_experts

NUM_EXPERTS, NUM_LAYERS, WIDTH, RANK = 7, 70, 256, 4
LAYER = NUM_EXPERTS * 4 * RANK * 2 * WIDTH  # bytes of all experts' updates of a layer
MODULE = "down_blocks.0.attentions.0.transformer_blocks.{}.attn1.to_q"
DENSE = 4 * WIDTH * WIDTH  # bytes of a whole layer


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    return [save_expert(expert(seed), folder / f"{seed}.safetensors") for seed in range(NUM_EXPERTS)]


def expert(seed):
    generator = torch.Generator().manual_seed(seed)
    layers = {
        MODULE.format(number): LowRank(
            torch.randn(WIDTH, RANK, generator=generator), torch.randn(RANK, WIDTH, generator=generator)
        )
        for number in range(NUM_LAYERS)
    }
    return SafetyExpert(layers, ("hate",), "sd15", {}, f"expert {seed}")


@pytest.mark.parametrize(
    ("method", "output_rank", "few_layers"),
    [("svd", RANK, 4 * LAYER), ("concat", 0, 2 * LAYER), ("magnitude_prune", RANK, 7 * DENSE)],
)
def test_peak_memory_of_a_merge_is_its_result_and_a_few_layers(paths, method, output_rank, few_layers):
    with LiveBytes() as live, ExitStack() as files:
        experts = [files.enter_context(open_expert(path)) for path in paths]
        merged = merge_experts(experts, MergeConfig(method=method, output_rank=output_rank))
    result = sum(layer.up.nbytes + layer.down.nbytes for layer in merged.layers.values())
    assert live.peak - result < few_layers < NUM_LAYERS * LAYER / 2  # the experts are never there at once


def test_a_layer_of_an_opened_expert_is_read_anew_each_time(paths):
    with open_expert(paths[0]) as opened:
        first, second = opened.layers[MODULE.format(0)], opened.layers[MODULE.format(0)]
        assert opened.content_hash == load_expert(paths[0]).content_hash
    assert first.up.data_ptr() != second.up.data_ptr()
    assert torch.equal(first.up, second.up)
