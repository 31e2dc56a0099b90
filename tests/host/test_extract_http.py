"""Extract Safety Expert in a real ComfyUI: the expert of a tuned model, and the refusals."""

import re

import pytest
import torch

from api_graphs import add_expert, add_render, node, pixels, text_of, with_model
from comfy_server import ComfyError
from training.experts.expert import SafetyExpert, save_expert
from training.experts.layer_names import is_layer
from training.experts.low_rank import LowRank
from training.mini.build import CHECKPOINT, TUNED
from training.models.unet_file import UnetFile

pytestmark = pytest.mark.host


def extracted(base: str = CHECKPOINT, tuned: str = TUNED, **settings) -> dict:
    settings = {"category": "shocking", "rank": 16, **settings}
    graph = with_model()
    graph["extract"] = node("AlignGuardExtractSafetyExpert", base=base, tuned=tuned, **settings)
    graph["info"] = node("AlignGuardSafetyExpertInfo", expert=("extract", 0))
    return graph


def apply(expert: tuple) -> dict:
    settings = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    return node("AlignGuardApplySafetyExpert", model=("ckpt", 0), expert=expert, **settings)


def largest_difference(first: bytes, second: bytes) -> int:
    return max(abs(a - b) for a, b in zip(first, second, strict=True))


def test_the_base_with_the_extracted_expert_draws_the_same_as_the_tuned_model(comfy):
    graph = extracted()
    graph["tuned"] = node("UNETLoader", unet_name=TUNED, weight_dtype="default")
    graph["applied"] = apply(("extract", 0))
    for name, model in (("a", "tuned"), ("b", "applied"), ("base", "ckpt")):
        add_render(graph, name, (model, 0))
    entry = comfy.run(graph)
    pictures = {name: pixels(comfy, entry, name) for name in ("a", "b", "base")}
    assert largest_difference(pictures["a"], pictures["b"]) <= 3  # of 255; fp16 weights are rounded
    assert largest_difference(pictures["a"], pictures["base"]) > 60
    report = text_of(entry, "info")
    assert "categories: shocking" in report
    assert f"extracted from: {TUNED}, tuned from {CHECKPOINT}" in report
    assert re.search(r"rank 16\b", report)  # of the expert in the tuned weights
    assert report == text_of(entry, "extract")
    for name in ("extract", "info"):  # the picture of what the expert holds of each layer
        assert [file["type"] for file in entry["outputs"][name]["images"]] == ["temp"]


def test_a_model_against_itself_is_refused_and_named(comfy):
    with pytest.raises(ComfyError, match=f"base and tuned are the same file, {CHECKPOINT}"):
        comfy.run(extracted(tuned=CHECKPOINT))


@pytest.mark.parametrize("name", ["gone.safetensors", "../../input/x.safetensors", "/etc/passwd"])
def test_a_model_that_is_not_listed_is_refused_before_anything_runs(comfy, name):
    with pytest.raises(ComfyError, match="there is no model"):
        comfy.run(extracted(tuned=name))


def test_the_stock_lora_loader_accepts_every_layer_that_an_extraction_can_hold(comfy, mini):
    shapes = UnetFile(mini["tuned"]).shapes
    generator = torch.Generator().manual_seed(3)
    layers = {}
    for name, shape in sorted(shapes.items()):
        module = name.removesuffix(".weight")
        if is_layer(module):
            d_in = torch.Size(shape[1:]).numel()
            up = 0.003 * torch.randn(shape[0], 2, generator=generator)
            layers[module] = LowRank(up, torch.randn(2, d_in, generator=generator))
    assert any("conv1" in module for module in layers)
    expert = SafetyExpert(layers, (), "sd15", {}, "all.safetensors")
    save_expert(expert, comfy.models_dir / "loras" / "all_layers.safetensors")
    logged = len(comfy.log_text())
    graph = add_expert(with_model(), file="all_layers.safetensors")
    strengths = {"strength_model": 1.0, "strength_clip": 1.0}
    names = {"lora_name": "all_layers.safetensors", **strengths}
    graph["stock"] = node("LoraLoader", model=("ckpt", 0), clip=("ckpt", 1), **names)
    graph["ours"] = apply(("expert", 1))
    for name, model in (("a", "stock"), ("b", "ours"), ("base", "ckpt")):
        add_render(graph, name, (model, 0))
    entry = comfy.run(graph)
    assert text_of(entry, "ours") == f"All {len(layers)} layers of the expert match this model."
    assert pixels(comfy, entry, "a") == pixels(comfy, entry, "b") != pixels(comfy, entry, "base")
    assert "lora key not loaded" not in comfy.log_text()[logged:]
    assert "NOT LOADED" not in comfy.log_text()[logged:]
