"""Ask what names the weights that draw, before and after the host itself has used, patched and loaded them.

    python drawing_facts_proof.py COMFYUI_FOLDER CHECKPOINT EXPERT PACK_PARENT

Prints one line of JSON: situation -> facts, or why there are none. PACK_PARENT holds the pack under the
name `alignguard`.
"""

import json
import sys
import threading
from pathlib import Path

HOST, CHECKPOINT, EXPERT, PACK_PARENT = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path[:0] = [HOST, PACK_PARENT]

import comfy.options

comfy.options.enable_args_parsing()

import comfy.sd
import torch
from alignguard.alignguard_nodes import host
from alignguard.training.experts.expert import load_expert
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete, RescaleCFG


def main() -> None:
    """Ask in every situation, in this order: the host's memory is what it is after the one before."""
    model, clip, vae = _load()
    told = {"plain": _facts(model, clip, vae)}
    _draw(_with_expert(model), clip, vae)
    told["plain after an expert drew"] = _facts(model, clip, vae)
    _draw(model, clip, vae)
    told["plain after it drew"] = _facts(model, clip, vae)
    _fill_free_memory()
    told["plain after another loading"] = _facts(*_load())
    told["expert"] = _facts(_with_expert(model), clip, vae)
    told["expert applied again"] = _facts(_with_expert(model), clip, vae)
    told["expert after another loading"] = _facts(_with_expert(_load()[0]), clip, vae)
    told["weaker expert"] = _facts(_with_expert(model, strength=0.5), clip, vae)
    told["late expert"] = _facts(_with_expert(model, start_percent=0.1), clip, vae)
    told["late expert applied again"] = _facts(_with_expert(model, start_percent=0.1), clip, vae)
    told["later expert"] = _facts(_with_expert(model, start_percent=0.2), clip, vae)
    told["v_prediction"] = _facts(ModelSamplingDiscrete().patch(model, "v_prediction", False)[0], clip, vae)
    told["zsnr"] = _facts(ModelSamplingDiscrete().patch(model, "v_prediction", True)[0], clip, vae)
    told["rescaled"] = _facts(RescaleCFG().patch(model, 0.7)[0], clip, vae)
    told["rescaled less"] = _facts(RescaleCFG().patch(model, 0.6)[0], clip, vae)
    skipping = clip.clone()
    skipping.clip_layer(-2)
    told["clip skip"] = _facts(model, skipping, vae)
    hiding = model.clone()
    hiding.model_options["lock"] = threading.Lock()
    told["hidden"] = _facts(hiding, clip, vae)
    sys.stdout.write(json.dumps(told) + "\n")


def _load():
    return comfy.sd.load_checkpoint_guess_config(CHECKPOINT)[:3]


def _fill_free_memory() -> None:
    """Leave numbers behind where the host takes memory for weights that a checkpoint lacks."""
    for size in (768, 768 * 768):
        [torch.full((size,), 7.0, dtype=kind) for kind in (torch.float16, torch.float32) for _ in range(50)]


def _with_expert(model, **options):
    options = {"strength": 1.0, **options}
    return host.apply_expert(model, load_expert(Path(EXPERT)), **options)[0]


def _facts(model, clip, vae):
    try:
        return host.drawing_facts(model, clip, vae)
    except ValueError as error:
        return str(error)


def _draw(model, clip, vae) -> None:
    sampling = host.Sampling("ddim", "normal", steps=1, cfg=2.0, resolution=64)
    draw = host.HostDraw(model, clip, vae, sampling)
    draw("a skull", seed=1)


main()
