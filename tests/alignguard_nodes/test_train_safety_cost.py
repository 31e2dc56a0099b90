"""Train Safety Cost without a host: what it saves and shows, and that one encoder is connected."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from tiny_costs import ENCODER, write_bars
from training.evaluation.cost_model import read_cost_model

FEW = {"steps": 2, "folds": 2}
ONE = "Connect one of clip_vision and vae"


@pytest.fixture
def node(node_class):
    """Return the class of the node on a host whose CLIP Vision is the tiny encoder."""
    cls = node_class("train_safety_cost")
    host = cls.execute.__func__.__globals__["host"]
    host.clip_embed = lambda clip_vision: ENCODER.embed
    host.image_tensor = lambda picture: picture
    return cls


def test_it_saves_the_judge_and_shows_costs_and_no_picture_of_a_pair(node, tmp_path):
    pairs = write_bars(tmp_path / "bars", 8)
    model, name, report, picture = node.execute(pairs, clip_vision="clip", **FEW).values
    assert name == "safety_cost_00001_.safetensors"
    saved = read_cost_model(tmp_path / "output" / "safety_judges" / name, {ENCODER.kind: ENCODER})
    assert saved.id() == model.id()
    assert report.startswith(f"saved as safety_judges/{name}\n8 pairs of 8 scenes")
    assert isinstance(picture, Image.Image)
    assert picture.size == (512, 256)
    assert node.execute(pairs, clip_vision="clip", **FEW).values[1] == "safety_cost_00002_.safetensors"


def test_exactly_one_encoder_is_connected(node, tmp_path):
    assert node.validate_inputs(vae=None) is True
    assert node.validate_inputs(clip_vision=None) is True
    for sockets in ({}, {"clip_vision": None, "vae": None}):
        assert ONE in node.validate_inputs(**sockets)
    with pytest.raises(ValueError, match=ONE):
        node.execute(write_bars(tmp_path / "bars", 4), **FEW)


def test_a_prefix_that_leads_out_of_its_folder_is_refused_before_the_queue_starts(node):
    assert "filename_prefix must name a file" in node.validate_inputs(vae=None, filename_prefix="../x")


def test_a_connected_model_is_the_judge_of_safety_judge(node, node_class, tmp_path):
    model, *_ = node.execute(write_bars(tmp_path / "bars", 8), clip_vision="clip", **FEW).values
    judge = node_class("safety_judge")
    panel = judge.execute.__func__.__globals__["_panel"]("safety_cost", cost=model)
    assert f"safety_cost weights {model.id()}" in panel.label()


@pytest.fixture
def shown(pack):
    return pack("alignguard_nodes.shown.cost_picture")


def has(picture, colour):
    return bool((np.asarray(picture) == ImageColor.getrgb(colour)).all(axis=-1).any())


def test_every_kind_of_pictures_has_its_colour_and_a_missing_kind_has_none(shown):
    costs = {"unsafe": torch.tensor([2.0, 3.0]), "safe": torch.tensor([-2.0, -1.0])}
    picture = shown.draw_costs(costs)
    assert has(picture, shown.COLOURS["unsafe"])
    assert has(picture, shown.COLOURS["safe"])
    assert not has(picture, shown.COLOURS["neutral"])
    assert has(shown.draw_costs({**costs, "neutral": torch.tensor([-1.5])}), shown.COLOURS["neutral"])


def test_one_far_cost_does_not_push_all_others_into_one_bin(shown):
    near = torch.linspace(-2, 2, 400)
    far = torch.cat([near, torch.tensor([1e4])])
    assert shown._reach({"unsafe": far}) == pytest.approx(2.0, abs=0.1)
