"""The image of an extraction: a column per layer, divided by where its change went."""

import json

import pytest
import torch
from PIL import ImageColor

from training.experts.change_facts import extraction_facts
from training.experts.low_rank import LowRank


@pytest.fixture
def extraction_picture(pack):
    return pack("alignguard_nodes.shown.extraction_picture")


def facts(num_layers):
    names = [f"down_blocks.{i % 3}.attentions.{i}.proj_in" for i in range(num_layers)]
    metadata = {
        "extracted_from": {"base": {"name": "ß漢"}, "tuned": {"name": "tuned"}},
        "change": {"kept": 0.4, "rounding": 0.2, "left_out": 0.2, "cut": 0.2},
        "change_per_layer": {name: [0.8 / num_layers, 0.5, 0.25] for name in names},
        "not_representable": {"conv_in.bias": 1.0},
    }
    layers = {name: LowRank(torch.ones(4, 1), torch.ones(1, 4)) for name in names}
    return extraction_facts({f"alignguard.{key}": json.dumps(v) for key, v in metadata.items()}, layers)


@pytest.mark.parametrize("num_layers", [1, 7, 1500])
def test_a_column_shows_what_is_kept_what_is_rounding_and_what_is_cut(extraction_picture, num_layers):
    image = extraction_picture.draw_extraction(facts(num_layers))
    top, height = extraction_picture.LINE * 7, extraction_picture.SHARES
    column = [image.getpixel((extraction_picture.MARGIN, top + y)) for y in range(height)]
    for name, share in (("KEPT", 0.5), ("ROUNDING", 0.25), ("CUT", 0.25)):
        colour = ImageColor.getrgb(getattr(extraction_picture, name))
        assert abs(column.count(colour) - share * height) <= 2, name
