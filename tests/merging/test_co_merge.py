"""The choice and the merge of co_merge on single layers, against dense matrices in fp64."""

import pytest
import torch

from builders import random_layer, seeded
from training.experts.low_rank import LowRank
from training.merging.co_merge import (
    LayerActivity,
    LayerStatistics,
    Stacked,
    activity,
    co_merge,
    most_active,
    row_picked,
)
from training.merging.layer import drop_zero_components

D_OUT, D_IN = 24, 16


def random_part(seed, rank=4):
    return random_layer(seeded(seed), D_OUT, D_IN, rank)


def zero_part():
    return LowRank(torch.zeros(D_OUT, 1), torch.zeros(1, D_IN))


def random_inputs(batch=20, tokens=5, seed=9):
    return torch.randn(batch, tokens, D_IN, generator=torch.Generator().manual_seed(seed))


def output_activity(inputs, parts):
    return activity(inputs, Stacked.of(parts))[..., : parts[0].d_out]


def rank_activity(inputs, parts):
    return activity(inputs, Stacked.of(parts))[..., parts[0].d_out :]


def dense(part):
    return part.up.double() @ part.down.double()


def merge(parts, inputs=None, statistic="win_count", level="output neuron"):
    inputs = random_inputs() if inputs is None else inputs
    counters = LayerStatistics.of(activity(inputs, Stacked.of(parts)))
    return co_merge(parts, statistics=LayerActivity.of(counters, D_OUT), statistic=statistic, level=level)


def statistics(wins, total, peak=None):
    total = torch.tensor(total).float()
    return LayerStatistics(torch.tensor(wins), total, total if peak is None else torch.tensor(peak).float())


def test_activity_is_the_mean_absolute_output_of_each_expert_alone():
    parts, inputs = [random_part(0), random_part(1, rank=2), zero_part()], random_inputs()
    outputs = [inputs.double() @ dense(part).T for part in parts]  # (batch, tokens, d_out)
    expected = torch.stack([output.abs().mean(1) for output in outputs])
    measured = output_activity(inputs, parts)
    torch.testing.assert_close(measured.double(), expected, rtol=1e-5, atol=1e-6)  # fp32 sums


def test_merge_takes_each_row_from_the_expert_that_wins_most_inputs():
    parts, inputs = [random_part(seed, rank=seed + 1) for seed in range(3)], random_inputs()
    deltas = torch.stack([dense(part) for part in parts])  # (experts, d_out, d_in)
    reaction = torch.einsum("btd,eod->ebto", inputs.double(), deltas).abs().mean(2)
    wins = torch.nn.functional.one_hot(reaction.argmax(0), 3).sum(0).T  # (experts, d_out)
    score = wins + reaction.mean(1) / (1 + reaction.mean(1).amax())  # ties by the mean
    expected = deltas[score.argmax(0), torch.arange(D_OUT)]
    merged = merge(parts)
    assert torch.equal(merged.winners, score.argmax(0))
    torch.testing.assert_close(dense(merged.update), expected, rtol=0, atol=0)  # rows are copied, never added


@pytest.mark.parametrize("statistic", ["win_count", "mean", "max"])
def test_every_statistic_follows_its_own_definition(statistic):
    parts, inputs = [random_part(0), random_part(1)], random_inputs()
    reaction = output_activity(inputs, parts)
    score = {
        "win_count": torch.stack([(reaction[0] > reaction[1]).sum(0), (reaction[1] > reaction[0]).sum(0)]),
        "mean": reaction.mean(1),
        "max": reaction.amax(1),
    }[statistic]
    decided = score[0] != score[1]
    winners = merge(parts, inputs, statistic).winners
    assert torch.equal(winners[decided], (score[1] > score[0]).long()[decided])
    assert set(winners.tolist()) == {0, 1}


def test_identical_experts_change_nothing():
    part = random_part(0)
    merged = merge([part, LowRank(part.up.clone(), part.down.clone()), part])
    assert torch.equal(merged.update.delta(), part.delta())


def test_order_of_the_experts_does_not_matter():
    parts = [random_part(seed) for seed in range(4)]
    torch.testing.assert_close(
        merge(parts).update.delta(), merge(parts[::-1]).update.delta(), rtol=0, atol=1e-6
    )


def test_experts_of_disjoint_rows_are_all_preserved():
    rows = torch.arange(D_OUT)[:, None] % 3
    parts = [LowRank(random_part(e).up * (rows == e), random_part(e).down) for e in range(3)]
    torch.testing.assert_close(
        dense(merge(parts).update), sum(dense(part) for part in parts), rtol=0, atol=1e-6
    )


def test_an_expert_keeps_its_own_rows_where_inputs_excite_only_it():
    # each expert reads one half of the input and is strong on half of the neurons
    half = (torch.arange(D_IN) < D_IN // 2).float()
    parts = [LowRank(p.up, p.down * h) for p, h in ((random_part(0), half), (random_part(1), 1 - half))]
    merged = merge(parts, random_inputs() * half)
    assert merged.winners.tolist() == [0] * D_OUT


def test_statistics_of_two_batches_add_up_to_those_of_one():
    parts, inputs = [random_part(0), random_part(1)], random_inputs()
    whole = LayerStatistics.of(output_activity(inputs, parts))
    first, second = (LayerStatistics.of(output_activity(half, parts)) for half in (inputs[:7], inputs[7:]))
    both = first.plus(second)
    assert torch.equal(both.wins, whole.wins)
    assert int(whole.wins.sum(0).unique()) == len(inputs)
    torch.testing.assert_close(both.total, whole.total)
    torch.testing.assert_close(both.peak, whole.peak)


def test_a_larger_expert_wins_more_rows_and_never_loses_one():
    parts, shares = [random_part(seed) for seed in range(3)], []
    for factor in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 64.0):
        winners = merge([parts[0].scaled(factor), *parts[1:]]).winners
        shares.append(set((winners == 0).nonzero().flatten().tolist()))
    assert all(before <= after for before, after in zip(shares, shares[1:], strict=False))
    assert shares[0] == set()
    assert len(shares[-1]) == D_OUT


def test_a_zero_expert_is_neutral():
    parts = [random_part(0), random_part(1)]
    with_zero = merge([parts[0], zero_part(), parts[1]])
    assert torch.equal(with_zero.update.delta(), merge(parts).update.delta())
    assert 1 not in with_zero.winners


def test_a_dead_neuron_gives_a_zero_row():
    parts = [random_part(0), random_part(1)]
    for part in parts:
        part.up[5] = 0
    merged = merge(parts)
    assert merged.winners[5] == -1
    assert torch.equal(merged.update.delta()[5], torch.zeros(D_IN))
    assert (merged.winners >= 0).sum() == D_OUT - 1


def test_a_layer_without_any_activity_stays_zero():
    merged = merge([zero_part(), zero_part()])
    assert not merged.update.delta().any()
    assert merged.winners.tolist() == [-1] * D_OUT


def test_ties_go_to_the_larger_mean_then_to_the_lower_index():
    tied = statistics(
        wins=[[3, 3, 0, 2], [3, 3, 0, 1], [1, 3, 0, 2]], total=[[1, 4, 0, 2], [2, 4, 0, 9], [9, 5, 0, 2]]
    )
    assert most_active(tied, "win_count").tolist() == [1, 2, -1, 0]


def test_experts_that_tie_on_an_input_both_win_it():
    counted = LayerStatistics.of(torch.tensor([[[2.0, 0.0]], [[2.0, 0.0]], [[1.0, 0.0]]]))
    assert counted.wins.tolist() == [[1, 0], [1, 0], [0, 0]]


def test_an_expert_that_won_no_row_takes_no_rank():
    parts = [random_part(0, rank=3), random_part(1, rank=5), random_part(2, rank=2)]
    winners = torch.tensor([0, 2] * (D_OUT // 2))
    picked = row_picked(parts, winners)
    slim = drop_zero_components(picked)
    assert (picked.rank, slim.rank) == (10, 5)
    assert torch.equal(slim.delta(), picked.delta())


def test_truncation_to_the_full_rank_is_the_exact_merge():
    parts = [random_part(seed) for seed in range(3)]
    exact = merge(parts).update
    same, kept = exact.truncated(12)
    assert kept == 1.0
    torch.testing.assert_close(same.delta(), exact.delta())


def sizes(parts, inputs):
    """Return the size of what each rank neuron adds to the output, (experts, inputs, rank), fp64."""
    return torch.stack(
        [
            (inputs.double() @ part.down.double().T).abs().mean(1) * part.up.double().norm(dim=0)
            for part in parts
        ]
    )


def test_rank_activity_is_the_size_of_what_a_rank_neuron_adds():
    parts, inputs = [random_part(0), random_part(1)], random_inputs()
    measured = rank_activity(inputs, parts)
    torch.testing.assert_close(measured.double(), sizes(parts, inputs), rtol=1e-5, atol=1e-5)
    rescaled = [LowRank(parts[0].up * 4, parts[0].down / 4), parts[1]]
    torch.testing.assert_close(rank_activity(inputs, rescaled), measured)


def test_a_narrower_expert_has_no_activity_beyond_its_rank():
    measured = rank_activity(random_inputs(), [random_part(0, rank=2), random_part(1, rank=5)])
    assert measured.shape == (2, 20, 5)
    assert not measured[0, :, 2:].any()


def test_at_level_rank_neuron_each_rank_neuron_is_taken_whole_from_its_winner():
    parts, inputs = [random_part(seed) for seed in range(3)], random_inputs()
    merged = merge(parts, inputs, statistic="mean", level="rank neuron")
    winners = sizes(parts, inputs).mean(1).argmax(0)
    assert torch.equal(merged.winners, winners)
    pairs = [(parts[e].up[:, j], parts[e].down[j]) for j, e in enumerate(winners.tolist())]
    expected = sum(torch.outer(up.double(), down.double()) for up, down in pairs)
    torch.testing.assert_close(dense(merged.update), expected)
    assert merged.update.rank == 4


def test_at_level_rowpick_rows_of_both_factors_are_chosen_separately():
    parts, inputs = [random_part(seed) for seed in range(3)], random_inputs()
    merged = merge(parts, inputs, statistic="mean", level="rowpick_AB")
    rows = merge(parts, inputs, statistic="mean").winners
    ranks = sizes(parts, inputs).mean(1).argmax(0)
    up = torch.stack([parts[e].up[i] for i, e in enumerate(rows.tolist())])
    down = torch.stack([parts[e].down[j] for j, e in enumerate(ranks.tolist())])
    assert torch.equal(merged.update.up, up)
    assert torch.equal(merged.update.down, down)
    assert torch.equal(merged.winners, rows)


@pytest.mark.parametrize("level", ["rank neuron", "rowpick_AB"])
def test_the_small_levels_accept_unequal_ranks_and_dead_neurons(level):
    parts = [random_part(0, rank=2), random_part(1, rank=5), zero_part()]
    assert merge(parts, level=level).update.rank == 5
    assert merge([zero_part(), zero_part()], level=level).update.norm() == 0


@pytest.mark.parametrize("level", ["rank neuron", "rowpick_AB"])
def test_the_small_levels_leave_identical_experts_as_they_are(level):
    part = random_part(0)
    assert torch.equal(dense(merge([part, part], level=level).update), dense(part))
