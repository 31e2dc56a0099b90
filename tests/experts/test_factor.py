"""The components of one layer's change: as good as the exact decomposition, without rounding noise."""

import pytest
import torch

from training.config import ExtractConfig
from training.experts.factor import factor, leading_components, rounding_variance
from training.models.noise import named_generator

SIZE = (480, 400)  # large enough for the search, small enough to decompose whole


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def of_rank(rank, size=SIZE, seed=0):
    return random(size[0], rank, seed=seed) @ random(rank, size[1], seed=seed + 1) / 100


def factored(change, variance=0.0, **options):
    return factor(change, variance, ExtractConfig(**options), named_generator("test"))


def test_a_change_of_low_rank_comes_back_whole():
    change = of_rank(5)
    result = factored(change, rank=8)
    # the three components beyond are roundings of fp32, 1e-7 of the largest
    torch.testing.assert_close(result.update.delta(), change, rtol=0, atol=1e-5 * float(change.abs().max()))
    assert result.kept == pytest.approx(result.total, rel=1e-6)


@pytest.mark.parametrize("fall", [0.0, 0.5, 1.0], ids=["flat", "slow", "harmonic"])
def test_the_search_keeps_nearly_the_energy_of_the_exact_decomposition(fall):
    q_out, q_in = (torch.linalg.qr(random(side, 400, seed=side)).Q for side in SIZE)
    spectrum = torch.arange(1, 401).float() ** -fall
    change = q_out * spectrum @ q_in.T
    exact = float(spectrum[:16].double().square().sum())
    u, s, vh = leading_components(change, 16, named_generator("test"))
    assert (
        float(s.double().square().sum()) >= (0.98 if fall else 0.7) * exact
    )  # a flat one has no leading part
    if fall == 1.0:
        torch.testing.assert_close(s[:8], spectrum[:8], rtol=1e-4, atol=0)
    torch.testing.assert_close(u.T @ u, torch.eye(16), rtol=0, atol=1e-5)
    torch.testing.assert_close(vh @ vh.T, torch.eye(16), rtol=0, atol=1e-5)


def test_the_same_change_gives_the_same_factors():
    change = of_rank(5) + random(*SIZE, seed=9) / 1000
    first, second = factored(change), factored(change)
    assert torch.equal(first.update.up, second.update.up)
    assert torch.equal(first.update.down, second.update.down)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_merged_lora_comes_out_at_its_own_rank_and_the_remainder_is_called_rounding(dtype):
    base = (random(*SIZE, seed=7) / 20).to(dtype)
    change = of_rank(4) / 5  # a tenth of the weights
    tuned = (base.float() + change).to(dtype)
    seen = tuned.float() - base.float()
    variance = rounding_variance(base, tuned, seen)
    noise = float((seen - change).double().square().sum())
    assert variance * seen.numel() == pytest.approx(noise, rel=0.05)
    result = factored(seen, variance, rank=32)
    assert result.update.rank == 4
    assert result.kept + result.rounding == pytest.approx(result.total, rel=0.02)
    assert float((result.update.delta() - change).norm()) < 0.25 * noise**0.5  # most noise stays behind


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_same_weights_stored_more_coarsely_are_not_a_change(dtype):
    base = random(*SIZE, seed=7) / 20
    seen = base.to(dtype).float() - base
    result = factored(seen, rounding_variance(base, base.to(dtype), seen))
    assert (result.update, result.kept) == (None, 0.0)
    assert result.rounding == pytest.approx(result.total, rel=0.1)


def test_an_exact_difference_keeps_components_that_rounding_would_hide():
    base = (random(*SIZE, seed=7) / 20).half()
    tuned = base.float() + of_rank(4) / 1000  # stored as fp32: nothing was rounded
    seen = tuned - base.float()
    assert factored(seen, rounding_variance(base, tuned, seen), rank=6).update.rank >= 4


def test_energy_may_limit_the_components_before_the_rank_does():
    change = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.1]))  # squares 9, 4, 1, 0.01
    assert factored(change, energy=0.6).update.rank == 1
    assert factored(change, energy=0.9).update.rank == 2
    assert factored(change, energy=1.0).update.rank == 4
    assert factored(change, rank=3).kept == pytest.approx(14.0)
