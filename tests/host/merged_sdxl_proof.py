"""Give a merged expert of SDXL to the stock loader and to Apply; compare the weights both would sample with.

    python merged_sdxl_proof.py COMFYUI_FOLDER FOLDER PACK_PARENT

Writes FOLDER/merged.safetensors and prints one line of JSON. PACK_PARENT holds the pack under the name
`alignguard`. The host's SDXL has its names and shapes but no values, so that it needs no memory; the values
that are patched are random.
"""

import json
import logging
import sys
from pathlib import Path

HOST, FOLDER, PACK_PARENT = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path[:0] = [HOST, PACK_PARENT]

import comfy.options

comfy.options.enable_args_parsing()

import comfy.lora
import comfy.model_detection
import comfy.model_patcher
import comfy.sd
import comfy.utils
import torch
from alignguard.alignguard_nodes.host.apply import apply_expert
from alignguard.training.config import MergeConfig
from alignguard.training.experts.expert import SafetyExpert, load_expert, save_expert
from alignguard.training.experts.low_rank import LowRank
from alignguard.training.merging import merge_experts
from diffusers import UNet2DConditionModel

from big_models import SDXL

ATTENTION = (".to_q", ".to_k", ".to_v", ".to_out.0")


def main() -> None:
    """Merge, save, load both ways and compare."""
    warned: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warned.append(record.getMessage())
    with torch.device("meta"):
        published = UNet2DConditionModel(**SDXL).state_dict()
        config = comfy.model_detection.model_config_from_diffusers_unet(published)
        model = comfy.model_patcher.ModelPatcher(config.get_model({}, ""), "cpu", "cpu")
    experts = [expert(name, seed, published) for seed, name in enumerate(("hate", "violence"))]
    merged = merge_experts(experts, MergeConfig(method="concat"), strengths=[1.0, 0.5])
    file = save_expert(merged, Path(FOLDER) / "merged.safetensors")
    logging.getLogger().addHandler(handler)
    stock, _ = comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(str(file)), 0.7, 0.0)
    ours, _ = apply_expert(model, load_expert(file), strength=0.7)
    told = {"layers": len(merged.layers), "patched": len(stock.patches), "warnings": warned}
    told["same_keys"] = stock.patches.keys() == ours.patches.keys()
    told["different"], told["unchanged"] = [], []
    for key in stock.patches:
        weight, one, other = weight_of(model, key), patched(stock, key), patched(ours, key)
        told["different"] += [] if torch.equal(one, other) else [key]
        told["unchanged"] += [key] if torch.equal(one, weight) else []
    sys.stdout.write(json.dumps(told) + "\n")


def expert(category: str, seed: int, published: dict[str, torch.Tensor]) -> SafetyExpert:
    """Return an expert of rank 2 in all attention projections, of random values."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name.removesuffix(".weight"): weight.shape for name, weight in published.items()}
    layers = {
        module: LowRank(
            torch.randn(shape[0], 2, generator=generator), torch.randn(2, shape[1], generator=generator)
        )
        for module, shape in shapes.items()
        if module.endswith(ATTENTION)
    }
    return SafetyExpert(layers, (category,), "sdxl", {}, category)


def patched(model: comfy.model_patcher.ModelPatcher, key: str) -> torch.Tensor:
    """Return the weight as the host samples with it."""
    return comfy.lora.calculate_weight(model.patches[key], weight_of(model, key), key)


def weight_of(model: comfy.model_patcher.ModelPatcher, key: str) -> torch.Tensor:
    """Return values for a weight of the model, always the same."""
    shape = comfy.utils.get_attr(model.model, key).shape
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(key)))


if __name__ == "__main__":
    main()
