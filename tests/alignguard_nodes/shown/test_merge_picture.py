"""The image of a merge: a column per layer, shared between the members."""

import json

import pytest
import torch
from PIL import ImageColor

from training.experts.low_rank import LowRank
from training.experts.merge_facts import merge_facts


@pytest.fixture
def merge_picture(pack):
    return pack("alignguard_nodes.shown.merge_picture")


@pytest.mark.parametrize("num_layers", [1, 7, 1500])
@pytest.mark.parametrize("kept_energy", [1.0, 0.5])
def test_a_merge_is_drawn_with_each_members_colour_in_its_share(merge_picture, num_layers, kept_energy):
    names = [f"down_blocks.{i % 3}.attentions.{i}.proj_in" for i in range(num_layers)]
    layers = {name: LowRank(torch.ones(4, 1), torch.ones(1, 4)) for name in names}
    facts = {
        "members": [{"name": name, "strength": 1.0} for name in ("a", "ß漢", "c")],
        "winners": {name: [2, 1, 0] for name in names},
        "member_norms": {name: [1.0, 2.0, 0.0] for name in names},
        "kept_energy_per_layer": dict.fromkeys(names, kept_energy),
    }
    merged = merge_facts({f"alignguard.{key}": json.dumps(value) for key, value in facts.items()}, layers)
    image = merge_picture.draw_merge(merged)
    height, left = merge_picture.SHARES, merge_picture.MARGIN
    top = merge_picture.LINE * (3 + 3)
    column = [image.getpixel((left, top + y)) for y in range(height)]
    first, second, third = (ImageColor.getrgb(colour) for colour in merge_picture.COLOURS[:3])
    assert abs(column.count(first) - height / 2) <= 2
    assert abs(column.count(second) - height / 4) <= 2
    assert third not in column
    assert abs(column.count(ImageColor.getrgb(merge_picture.UNWON)) - height / 4) <= 2


def test_a_merge_without_winners_and_norms_is_drawn_too(merge_picture):
    layers = {"mid_block.attentions.0.proj_in": LowRank(torch.zeros(4, 1), torch.zeros(1, 4))}
    facts = merge_facts({"alignguard.members": json.dumps([{"name": "a", "strength": 1}])}, layers)
    assert merge_picture.draw_merge(facts).size[0] > 0
