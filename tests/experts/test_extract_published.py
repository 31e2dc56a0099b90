"""Models laid out as AlignGuard's authors published theirs become experts, against every kind of base."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tiny_checkpoint import checkpoint_state, tiny_models
from tiny_tuned import lora_of_all_layers
from training.config import ExtractConfig
from training.experts.change_facts import extraction_facts
from training.experts.extract import extract_expert
from training.models import FAMILIES

RANK = 3
SHARDS = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]


def published(folder, models, num_shards=1, variant=None):
    """Write a folder as `DiffusionPipeline.save_pretrained` does: a part each, with its configuration."""
    folder.mkdir()
    parts = {name: ["diffusers", type(model).__name__] for name, model in models.items()}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "DiffusionPipeline"} | parts))
    for part, model in models.items():
        size = sum(tensor.nbytes for tensor in model.state_dict().values())
        limit = size // 2 + size // 20 if part == "unet" and num_shards > 1 else 10 * size
        model.save_pretrained(folder / part, max_shard_size=limit, variant=variant)
    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def models(request, tmp_path_factory):
    """A base model in four layouts, and what was tuned from it, in fp32 shards."""
    family = FAMILIES[request.param]
    parts = {name: part.half() for name, part in tiny_models(family=family).items()}
    root = tmp_path_factory.mktemp(request.param)
    state = {name: tensor.contiguous() for name, tensor in checkpoint_state(parts, family).items()}
    save_file(state, root / "one.safetensors")
    prefix = "model.diffusion_model."
    unet_only = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
    save_file(unet_only, root / "unet only.safetensors")
    published(root / "folder", parts)
    published(root / "fp16 variant", parts, variant="fp16")
    layers = lora_of_all_layers(parts["unet"].state_dict(), RANK)
    tuned = {name: part.float() for name, part in parts.items()}
    with torch.no_grad():
        for module, layer in layers.items():
            weight = tuned["unet"].get_parameter(f"{module}.weight")
            weight.add_(layer.delta().reshape(weight.shape))
    published(root / "tuned", tuned, num_shards=2)
    assert sorted(file.name for file in (root / "tuned" / "unet").glob("*.safetensors")) == SHARDS
    return root, family, layers


@pytest.mark.parametrize("base", ["one.safetensors", "unet only.safetensors", "folder", "fp16 variant"])
def test_the_folder_becomes_the_expert_that_was_merged_into_it(models, base):
    root, family, layers = models
    expert = extract_expert(root / base, root / "tuned", ExtractConfig(rank=8))
    assert (expert.family, expert.layers.keys()) == (family.name, layers.keys())
    for module, layer in layers.items():
        error = float((expert.layers[module].delta() - layer.delta()).norm())
        assert error < 1e-3 * layer.norm()  # fp32 holds the tuned weights, so that fp16 rounds nothing
    facts = extraction_facts(expert.metadata, expert.layers)
    assert facts.shares["kept"] > 0.9999
    parts = ["VAE", *(("second text encoder",) if len(family.text_encoders) > 1 else ()), "text encoder"]
    if base == "unet only.safetensors":
        assert [text.split(" not compared")[0] for text in facts.other_parts.split("; ")] == parts
    else:
        assert facts.other_parts == f"{', '.join(parts)} equal"


@pytest.mark.parametrize("place", ["tuned/unet", f"tuned/unet/{SHARDS[1]}"])
def test_its_unet_folder_or_one_shard_stands_for_the_unet(models, place):
    root, _, _ = models
    whole = extract_expert(root / "folder", root / "tuned", ExtractConfig(rank=8))
    part = extract_expert(root / "folder", root / place, ExtractConfig(rank=8))
    assert part.content_hash == whole.content_hash


def test_the_facts_say_what_a_lower_rank_would_keep(models):
    root, _, _ = models
    full = extract_expert(root / "folder", root / "tuned", ExtractConfig(rank=8))
    facts = extraction_facts(full.metadata, full.layers)
    assert [rank for rank, _ in facts.by_rank] == [1, 2, RANK]  # no component of mere rounding
    for rank, share in facts.by_rank:
        lower = extract_expert(root / "folder", root / "tuned", ExtractConfig(rank=rank))
        assert share == pytest.approx(json.loads(lower.metadata["alignguard.change"])["kept"], abs=1e-3)
        assert f"{100 * share:.1f} % at rank {rank}" in full.report()
    assert sum(layer.share for layer in facts.layers) == pytest.approx(1, abs=1e-3)
    assert {layer.module for layer in facts.layers} == full.layers.keys()
