"""Low-rank updates against dense matrices in fp64."""

import copy

import pytest
import torch

from training.experts.low_rank import LowRank, added_output, approximate, concatenate

SHAPES = [(7, 5, 3), (320, 768, 4), (64, 320, 28), (4, 6, 9), (9, 4, 6), (1, 1, 1)]  # d_out, d_in, rank


def random_layer(d_out, d_in, rank, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    up = torch.randn(d_out, rank, generator=generator, dtype=torch.float64)
    down = torch.randn(rank, d_in, generator=generator, dtype=torch.float64)
    return LowRank(up.to(dtype), down.to(dtype))


def dense(layer):
    return layer.up.double() @ layer.down.double()


@pytest.mark.parametrize("shape", SHAPES)
def test_norm_equals_the_norm_of_the_dense_update(shape):
    layer = random_layer(*shape)
    assert layer.norm() == pytest.approx(float(torch.linalg.norm(dense(layer))), rel=1e-12)  # both in fp64


def test_norm_of_a_sum_that_cancels_is_zero():
    layer = random_layer(8, 6, 2)
    assert concatenate([layer, layer.scaled(-1)]).norm() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_truncation_equals_the_dense_truncated_svd(shape, dtype, rank):
    layer = random_layer(*shape, dtype=dtype)
    cut, kept = layer.truncated(rank)
    u, s, vh = torch.linalg.svd(dense(layer), full_matrices=False)
    best = u[:, :rank] * s[:rank] @ vh[:rank]
    error = torch.linalg.norm(dense(cut) - best) / torch.linalg.norm(best)
    assert error <= 1e-4  # the design: fp32 roundings of 6e-8, divided by the gap of the singular values
    assert kept == pytest.approx(float(s[:rank].square().sum() / s.square().sum()), rel=1e-5)
    assert cut.rank <= rank
    assert cut.up.dtype == dtype


def test_truncation_of_seven_experts_matches_at_the_size_of_a_real_layer():
    total = concatenate([random_layer(320, 768, 4, seed) for seed in range(7)])
    cut, _ = total.truncated(4)
    u, s, vh = torch.linalg.svd(dense(total), full_matrices=False)
    best = u[:, :4] * s[:4] @ vh[:4]
    assert torch.linalg.norm(dense(cut) - best) / torch.linalg.norm(best) <= 1e-5


def test_truncation_shares_the_singular_values_between_the_factors():
    cut, _ = random_layer(64, 48, 8).truncated(3)
    torch.testing.assert_close(cut.up.T @ cut.up, cut.down @ cut.down.T, rtol=1e-4, atol=1e-3)  # both diag(S)


@pytest.mark.parametrize("rank", [3, 4, 100])
def test_truncation_to_the_full_rank_or_more_changes_nothing(rank):
    layer = random_layer(7, 5, 3)
    assert layer.truncated(rank) == (layer, 1.0)


def test_truncating_a_zero_update_keeps_all_of_it():
    cut, kept = LowRank(torch.zeros(6, 4), torch.randn(4, 5)).truncated(2)
    assert kept == 1.0
    assert cut.norm() == 0.0


def test_truncation_error_is_the_energy_not_kept():
    layer = random_layer(20, 30, 6, dtype=torch.float64)
    cut, kept = layer.truncated(2)
    lost = torch.linalg.norm(layer.delta() - cut.delta()) ** 2 / layer.norm() ** 2
    assert kept == pytest.approx(1 - float(lost), abs=1e-12)


@pytest.mark.parametrize(("shape", "rank"), [((30, 20), 5), ((9, 40), 9), ((300, 200), 4)])
def test_a_dense_update_is_approximated_as_well_as_its_svd_does(shape, rank):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))  # no gap: the hardest case
    cut, kept = approximate(matrix, rank)
    best = torch.linalg.svdvals(matrix.double()).square()
    assert cut.rank == rank
    lost = torch.linalg.norm(matrix.double() - dense(cut)) ** 2 / best.sum()
    assert kept == pytest.approx(1 - float(lost), abs=1e-5)
    assert kept >= 0.97 * float(best[:rank].sum() / best.sum())  # the randomised one loses a little


def test_a_dense_update_of_low_rank_comes_back_whole_and_the_same_each_time():
    layer = random_layer(320, 300, 6)
    cut, kept = approximate(layer.delta(), 8)
    assert torch.linalg.norm(dense(cut) - dense(layer)) <= 1e-5 * layer.norm()
    assert kept == pytest.approx(1, abs=1e-6)
    assert torch.equal(cut.up, approximate(layer.delta(), 8)[0].up)


def test_an_approximation_at_full_rank_or_of_zero_keeps_everything():
    cut, kept = approximate(random_layer(7, 5, 5).delta(), 100)
    assert (cut.rank, kept) == (5, 1.0)
    assert approximate(torch.zeros(4, 3), 1)[1] == 1.0
    with pytest.raises(ValueError, match="at least 1, got 0"):
        approximate(torch.ones(4, 3), 0)


def test_concatenation_is_the_exact_sum():
    parts = [random_layer(6, 5, rank, seed=rank) for rank in (1, 2, 4)]
    total = concatenate(parts)
    assert total.rank == 7
    torch.testing.assert_close(dense(total), sum(dense(part) for part in parts), rtol=1e-14, atol=1e-14)
    assert torch.equal(total.up[:, 1:3], parts[1].up)
    assert torch.equal(total.down[3:], parts[2].down)


def test_concatenation_of_one_is_that_one():
    layer = random_layer(6, 5, 2)
    assert torch.equal(concatenate([layer]).delta(), layer.delta())


def test_concatenation_does_not_depend_on_order_beyond_rounding():
    parts = [random_layer(6, 5, 2, seed) for seed in range(3)]
    torch.testing.assert_close(
        dense(concatenate(parts)), dense(concatenate(parts[::-1])), rtol=1e-13, atol=1e-13
    )


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0])
def test_scaling_scales_the_update_and_leaves_the_original(factor):
    layer = random_layer(6, 5, 2)
    before = layer.delta()
    assert torch.equal(layer.scaled(factor).delta(), factor * before)  # powers of two: no rounding
    assert torch.equal(layer.delta(), before)


@pytest.mark.parametrize(
    ("up", "down", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 4), r"got \(3, 2\) and \(3, 4\)"),
        (torch.zeros(3), torch.zeros(3, 4), "up must be"),
        (torch.zeros(3, 0), torch.zeros(0, 4), "at least 1"),
        (torch.zeros(3, 2).half(), torch.zeros(2, 4).half(), "must both be fp32"),
        (torch.zeros(3, 2), torch.zeros(2, 4).double(), "must both be fp32"),
    ],
)
def test_factors_that_form_no_update_are_refused(up, down, message):
    with pytest.raises(ValueError, match=message):
        LowRank(up, down)


def test_truncation_below_rank_one_and_impossible_sums_are_refused():
    layer = random_layer(6, 5, 2)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        layer.truncated(0)
    with pytest.raises(ValueError, match="none"):
        concatenate([])
    with pytest.raises(ValueError, match=r"\(6, 5\), \(7, 5\)"):
        concatenate([layer, random_layer(7, 5, 2)])


LAYERS = {
    "a Linear": (torch.nn.Linear(6, 8), (2, 5, 6)),
    "a convolution of single pixels": (torch.nn.Conv2d(6, 8, 1), (2, 6, 4, 4)),
    "a wide convolution with a stride": (torch.nn.Conv2d(6, 8, 3, stride=2, padding=1), (2, 6, 5, 4)),
}


@pytest.mark.parametrize(("module", "shape"), LAYERS.values(), ids=LAYERS)
def test_what_an_update_adds_to_an_output_is_what_it_does_in_the_weight(module, shape):
    module = copy.deepcopy(module).double().requires_grad_(False)
    layer = random_layer(8, module.weight[0].numel(), 3, dtype=torch.float64)
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before = module(inputs)
    added = added_output(module, inputs, layer.up, layer.down)
    module.weight.add_(layer.delta().reshape(module.weight.shape))
    torch.testing.assert_close(module(inputs), before + added)
