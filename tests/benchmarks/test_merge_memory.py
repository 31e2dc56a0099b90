"""Experts are merged layer by layer from their files: memory holds the result and a few layers.

In a host, the experts are loaded values, which need memory once in addition.
"""

from contextlib import ExitStack

import pytest
import torch

from builders import expert_of, layers_of_shapes, seeded
from tensor_bytes import LiveBytes
from training.config import MergeConfig
from training.experts.expert import load_expert, open_expert, save_expert
from training.merging import merge_experts

NUM_EXPERTS, NUM_LAYERS, WIDTH, RANK = 7, 70, 256, 4
LAYER = NUM_EXPERTS * 4 * RANK * 2 * WIDTH  # bytes of one layer's updates in all experts
MODULE = "down_blocks.0.attentions.0.transformer_blocks.{}.attn1.to_q"
DENSE = 4 * WIDTH * WIDTH  # bytes of a dense layer
PEAKS = [("svd", RANK, 4 * LAYER), ("concat", 0, 2 * LAYER), ("magnitude_prune", RANK, 7 * DENSE)]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    return [save_expert(expert(seed), folder / f"{seed}.safetensors") for seed in range(NUM_EXPERTS)]


def expert(seed):
    shapes = {MODULE.format(number): (WIDTH, WIDTH) for number in range(NUM_LAYERS)}
    return expert_of(layers_of_shapes(shapes, seeded(seed), RANK), "hate")


def size_of(expert):
    return sum(layer.up.nbytes + layer.down.nbytes for layer in expert.layers.values())


@pytest.mark.parametrize(("method", "output_rank", "few_layers"), PEAKS)
def test_a_merge_from_files_needs_its_result_and_a_few_layers_of_memory(
    paths, method, output_rank, few_layers
):
    with LiveBytes() as live, ExitStack() as files:
        experts = [files.enter_context(open_expert(path)) for path in paths]
        merged = merge_experts(experts, MergeConfig(method=method, output_rank=output_rank))
    assert (
        live.peak - size_of(merged) < few_layers < NUM_LAYERS * LAYER / 2
    )  # the experts are never all in memory


@pytest.mark.parametrize(("method", "output_rank", "few_layers"), PEAKS)
def test_a_merge_of_loaded_experts_needs_the_experts_once_its_result_and_a_few_layers(
    paths, method, output_rank, few_layers
):
    with LiveBytes() as live:
        experts = [load_expert(path) for path in paths]
        merged = merge_experts(experts, MergeConfig(method=method, output_rank=output_rank))
    inputs, result = sum(map(size_of, experts)), size_of(merged)
    assert inputs == NUM_LAYERS * LAYER
    assert live.peak - inputs - result < few_layers


def test_a_loaded_expert_does_not_depend_on_its_file(paths, tmp_path):
    file = tmp_path / "expert.safetensors"
    file.write_bytes(paths[0].read_bytes())
    loaded = load_expert(file)
    file.write_bytes(bytes(file.stat().st_size))  # overwritten in place, which a memory map would show
    assert loaded.content_hash == load_expert(paths[0]).content_hash


def test_a_layer_of_an_opened_expert_is_read_from_the_file_every_time(paths):
    with open_expert(paths[0]) as opened:
        first, second = opened.layers[MODULE.format(0)], opened.layers[MODULE.format(0)]
        assert opened.content_hash == load_expert(paths[0]).content_hash
    assert first.up.data_ptr() != second.up.data_ptr()
    assert torch.equal(first.up, second.up)
