"""PEFT's add_weighted_adapter as the oracle of every method that it also has; experts at strength 1."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils.merge_utils import calculate_majority_sign_mask, disjoint_merge
from torch import nn

from training.experts.low_rank import LowRank
from training.merging.entrywise import elected_mean, keep_random, magnitude_prune, ties
from training.merging.exact import average, concat, svd

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


@pytest.mark.parametrize("rank", [0, 2, 3 * RANK])
def test_svd_equals_peft_svd_whose_rank_is_that_of_one_expert(parts, rank):
    expected = merged_by_peft(parts, [1.0] * 3, "svd", svd_rank=rank or None)
    cut = svd(parts, output_rank=rank).update
    torch.testing.assert_close(cut.delta().double(), expected, rtol=1e-4, atol=1e-4)  # fp32 SVDs


@pytest.mark.parametrize("density", [0.2, 0.5, 0.77])
@pytest.mark.parametrize("method", [magnitude_prune, ties])
def test_pruning_methods_equal_those_of_peft(parts, method, density):
    expected = merged_by_peft(parts, [1.0] * 3, f"{method.__name__}_svd", density=density, svd_rank=SIZE)
    merged = method(parts, density=density).update
    torch.testing.assert_close(merged.double(), expected, rtol=1e-4, atol=1e-4)  # an fp32 SVD in between


def test_the_elected_mean_of_randomly_thinned_updates_equals_that_of_peft(parts):
    thinned = [keep_random(p.delta(), 0.5, torch.Generator().manual_seed(i)) for i, p in enumerate(parts)]
    stacked = torch.stack(thinned)
    expected = disjoint_merge(stacked, calculate_majority_sign_mask(stacked))
    torch.testing.assert_close(elected_mean(thinned), expected)
