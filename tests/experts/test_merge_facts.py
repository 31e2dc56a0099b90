"""The metadata of a merged file, read as values and shown as lines of text."""

import json

import pytest
import torch

from training.experts.low_rank import LowRank
from training.experts.merge_facts import merge_facts
from training.experts.report import merge_lines

LATE, EARLY, TENTH = (
    f"{block}.attentions.0.transformer_blocks.{number}.attn1.to_q"
    for block, number in (("up_blocks.1", 0), ("down_blocks.0", 2), ("down_blocks.0", 10))
)
LAYERS = {name: LowRank(torch.full((4, 1), 0.5), torch.ones(1, 9)) for name in (LATE, TENTH, EARLY)}  # norm 3
MEMBERS = [
    {"name": "a.safetensors", "strength": 1.0, "hash": "1" * 64},
    {
        "name": "average of 2 experts",
        "strength": 0.5,
        "hash": "2" * 64,
        "method": "average",
        "members": [{"name": "b.safetensors", "strength": 2.0, "hash": "3" * 64}],
    },
]
NORMS = {LATE: [3.0, 4.0], TENTH: [1.0, 0.0], EARLY: [0.0, 0.0]}


def metadata(**more):
    values = {"members": MEMBERS, "member_norms": NORMS, **more}
    texts = {f"alignguard.{name}": json.dumps(value) for name, value in values.items() if value is not None}
    return texts | {"alignguard.method": "co_merge"}


def test_layers_come_in_the_order_they_run_in():
    facts = merge_facts(metadata(), LAYERS)
    assert [layer.module for layer in facts.layers] == [EARLY, TENTH, LATE]
    assert [layer.block for layer in facts.layers] == ["down.0", "down.0", "up.1"]


def test_shares_count_the_neurons_that_were_won_out_of_all_neurons():
    facts = merge_facts(metadata(winners={LATE: [1, 2]}), LAYERS)
    assert facts.has_winners
    assert facts.layers[-1].shares() == (0.25, 0.5)  # of four


def test_every_rank_neuron_was_won():
    facts = merge_facts(metadata(winners={LATE: [1, 2]}) | {"alignguard.level": "rank neuron"}, LAYERS)
    assert facts.layers[-1].shares() == pytest.approx((1 / 3, 2 / 3))
    assert "rank neurons won:" in merge_lines(facts)


def test_if_experts_are_mixed_shares_are_of_the_squared_norms():
    facts = merge_facts(metadata(), LAYERS)
    assert not facts.has_winners
    assert facts.layers[-1].shares() == pytest.approx((9 / 25, 16 / 25))
    assert facts.layers[0].shares() == (0.0, 0.0)


def test_members_of_members_are_listed_with_hashes_and_strengths():
    lines = merge_lines(merge_facts(metadata(), LAYERS))
    assert lines[:4] == [
        "members:",
        "  1 a.safetensors, strength 1, 111111111111",
        "  2 average of 2 experts, strength 0.5, 222222222222",
        "      1 b.safetensors, strength 2, 333333333333",
    ]


def test_norms_before_and_after_and_the_energy_kept_are_listed_per_block():
    facts = merge_facts(metadata(kept_energy_per_layer={EARLY: 0.5, TENTH: 1.0, LATE: 0.9}), LAYERS)
    words = [line.split() for line in merge_lines(facts)[4:]]
    assert words[0] == ["norm", "of", "the", "update:"]
    assert words[1] == ["down.0", "up.1"]
    assert words[2][-2:] == ["1", "3"]
    assert words[3][-2:] == ["0", "4"]
    assert words[4] == ["merged", "4.243", "3"]
    assert words[-1] == ["merged", "66.7", "90.0"]  # 18 of 27 squared


def test_older_files_without_member_norms_are_read():
    facts = merge_facts(metadata(member_norms=None), LAYERS)
    assert [line.split()[0] for line in merge_lines(facts)[-1:]] == ["merged"]
    assert facts.layers[0].before == ()


@pytest.mark.parametrize(
    "more", [{"members": "odd"}, {"members": [{"name": "a"}]}, {"winners": {LATE: [1]}}, {"winners": [1]}]
)
def test_metadata_of_another_form_is_not_a_merge(more):
    assert merge_facts(metadata(**more), LAYERS) is None


def test_a_file_that_was_not_merged_has_no_facts():
    assert merge_facts({}, LAYERS) is None
