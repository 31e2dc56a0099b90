"""Load a merged SDXL expert with the stock loader and with Apply, and compare the weights to sample with.

    python merged_sdxl_proof.py COMFYUI_FOLDER FOLDER PACK_PARENT

Writes FOLDER/merged.safetensors and prints one line of JSON. PACK_PARENT contains the pack under the name
`alignguard`. The host's SDXL has names and shapes but no values, so that it needs no memory; the patched
weights are random.
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
    """Merge, save, load in both ways and compare."""
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())
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
    results = {"layers": len(merged.layers), "patched": len(stock.patches), "warnings": warnings}
    results["same_keys"] = stock.patches.keys() == ours.patches.keys()
    results["different"], results["unchanged"] = [], []
    for key in stock.patches:
        weight, by_stock, by_ours = weight_of(model, key), patched(stock, key), patched(ours, key)
        results["different"] += [] if torch.equal(by_stock, by_ours) else [key]
        results["unchanged"] += [key] if torch.equal(by_stock, weight) else []
    sys.stdout.write(json.dumps(results) + "\n")


def expert(category: str, seed: int, published: dict[str, torch.Tensor]) -> SafetyExpert:
    """Return an expert of rank 2 with random values in all attention projections."""
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
    """Return the weight that the host samples with."""
    return comfy.lora.calculate_weight(model.patches[key], weight_of(model, key), key)


def weight_of(model: comfy.model_patcher.ModelPatcher, key: str) -> torch.Tensor:
    """Return fixed random values for a weight of the model."""
    shape = comfy.utils.get_attr(model.model, key).shape
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(key)))


if __name__ == "__main__":
    main()
