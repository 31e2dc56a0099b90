"""A style LoRA trained beside an expert, on top of it, and together with it."""

from types import SimpleNamespace

import pytest
import torch

import style_lora
from candidates import as_change, changed
from style_lora import train_style
from training.experts.low_rank import LowRank
from training.mini import shipped
from training.mini.pairs import safe_scenes
from training.models.noise import NoiseSchedule


@pytest.fixture
def lab(monkeypatch):
    monkeypatch.setattr(style_lora, "STEPS", 2)
    monkeypatch.setattr(style_lora, "DRAWINGS", 1)
    text = torch.randn(77, 768, generator=torch.Generator().manual_seed(0))  # the mini texts take longer
    return SimpleNamespace(
        unet=shipped.load_unet(),
        autoencoder=shipped.load_autoencoder(),
        schedule=NoiseSchedule.scaled_linear(),
        embeds={scene.prompt(): text for scene in safe_scenes()},
    )


@pytest.fixture
def expert():
    return shipped.load_expert_layers()["violence"]


def test_modular_training_ignores_the_expert_and_sequential_training_does_not(lab, expert):
    before = {name: weight.clone() for name, weight in lab.unet.named_parameters()}
    alone = train_style(lab.unet, lab)
    again = train_style(lab.unet, lab)
    with changed(lab.unet, as_change(expert, lab.unet)):
        on_top = train_style(lab.unet, lab)
    assert all(torch.equal(alone[name].up, again[name].up) for name in alone)
    assert any(not torch.equal(alone[name].up, on_top[name].up) for name in alone)
    assert all(torch.equal(weight, before[name]) for name, weight in lab.unet.named_parameters())


def test_joint_training_starts_from_the_expert(lab, expert, monkeypatch):
    monkeypatch.setattr(style_lora, "STEPS", 0)
    untouched = train_style(lab.unet, lab, expert)
    for name, layer in expert.items():
        torch.testing.assert_close(untouched[name].delta(), layer.delta())


def test_zero_directions_do_not_change_an_update():
    layer = LowRank(torch.ones(3, 2), torch.ones(2, 4))
    wider = style_lora.of_rank(layer, 5)
    assert wider.rank == 5
    assert torch.equal(wider.delta(), layer.delta())


def test_changes_are_summed_by_name():
    total = style_lora.summed({"a": torch.tensor(1.0), "b": torch.tensor(2.0)}, {"b": torch.tensor(3.0)})
    assert {name: value.item() for name, value in total.items()} == {"a": 1.0, "b": 5.0}
