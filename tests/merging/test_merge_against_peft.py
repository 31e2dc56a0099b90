"""PEFT's add_weighted_adapter as the oracle of concat and average."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from training.low_rank import LowRank
from training.merging.average import average
from training.merging.concat import concat

RANK, SIZE = 3, 20


def merged_by_peft(parts, weights, combination, **options):
    """Return the dense update that PEFT makes of the parts, fp64."""
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["to_q"])
    model = get_peft_model(nn.ModuleDict({"to_q": nn.Linear(SIZE, SIZE, bias=False)}), config, "0")
    names = [str(i) for i in range(len(parts))]
    for name in names[1:]:
        model.add_adapter(name, config)
    layer = model.base_model.model["to_q"]
    for name, part in zip(names, parts, strict=True):
        layer.lora_A[name].weight.data, layer.lora_B[name].weight.data = part.down.clone(), part.up.clone()
    model.base_model.add_weighted_adapter(names, weights, "merged", combination_type=combination, **options)
    return layer.get_delta_weight("merged").double()


@pytest.fixture(scope="module")
def parts():
    generator = torch.Generator().manual_seed(0)
    sizes = [(SIZE, RANK), (RANK, SIZE)]
    return [LowRank(*(torch.randn(*size, generator=generator) for size in sizes)) for _ in range(3)]


def test_concat_equals_peft_cat(parts):
    expected = merged_by_peft(parts, [1.0] * 3, "cat")
    torch.testing.assert_close(concat(parts).update.delta().double(), expected, rtol=1e-5, atol=1e-5)


def test_average_equals_peft_cat_with_weights_of_one_third(parts):
    expected = merged_by_peft(parts, [1 / 3] * 3, "cat")
    torch.testing.assert_close(average(parts).update.delta().double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [2, RANK, 3 * RANK])
def test_truncated_average_equals_peft_svd(parts, rank):
    expected = merged_by_peft(parts, [1 / 3] * 3, "svd", svd_rank=rank)
    cut, _ = average(parts).update.truncated(rank)
    torch.testing.assert_close(cut.delta().double(), expected, rtol=1e-4, atol=1e-4)  # fp32 SVDs
