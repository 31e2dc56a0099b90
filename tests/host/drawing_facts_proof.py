"""Collect the facts that identify the drawing weights, before and after the host uses them.

    python drawing_facts_proof.py COMFYUI_FOLDER CHECKPOINT EXPERT PACK_PARENT

Prints one line of JSON: situation -> facts, or the message of the refusal. PACK_PARENT contains the pack
under the name `alignguard`.
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
from alignguard.training.models.hashes import AS_ENCODERS
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete, RescaleCFG


def main() -> None:
    """Collect the facts in every situation; the order matters, because each changes the host's state."""
    model, clip, vae = _load()
    facts = {"plain": _facts(model, clip, vae)}
    _draw(_with_expert(model), clip, vae)
    facts["plain after an expert drew"] = _facts(model, clip, vae)
    _draw(model, clip, vae)
    facts["plain after it drew"] = _facts(model, clip, vae)
    _fill_free_memory()
    facts["plain after another loading"] = _facts(*_load())
    facts["plain with a type to compute in"] = _facts(model, _computing_in_fp32(clip), vae)
    for name, types in {"fp16": (torch.float16,), "fp16, then bf16": AS_ENCODERS}.items():
        facts[f"plain in {name}"] = _facts(*_retyped(types))
    facts["expert"] = _facts(_with_expert(model), clip, vae)
    facts["expert applied again"] = _facts(_with_expert(model), clip, vae)
    facts["expert after another loading"] = _facts(_with_expert(_load()[0]), clip, vae)
    facts["weaker expert"] = _facts(_with_expert(model, strength=0.5), clip, vae)
    facts["late expert"] = _facts(_with_expert(model, start_percent=0.1), clip, vae)
    facts["late expert applied again"] = _facts(_with_expert(model, start_percent=0.1), clip, vae)
    facts["later expert"] = _facts(_with_expert(model, start_percent=0.2), clip, vae)
    facts["v_prediction"] = _facts(ModelSamplingDiscrete().patch(model, "v_prediction", False)[0], clip, vae)
    facts["zsnr"] = _facts(ModelSamplingDiscrete().patch(model, "v_prediction", True)[0], clip, vae)
    facts["rescaled"] = _facts(RescaleCFG().patch(model, 0.7)[0], clip, vae)
    facts["rescaled less"] = _facts(RescaleCFG().patch(model, 0.6)[0], clip, vae)
    skipping = clip.clone()
    skipping.clip_layer(-2)
    facts["clip skip"] = _facts(model, skipping, vae)
    hiding = model.clone()
    hiding.model_options["lock"] = threading.Lock()
    facts["hidden"] = _facts(hiding, clip, vae)
    sys.stdout.write(json.dumps(facts) + "\n")


def _load():
    return comfy.sd.load_checkpoint_guess_config(CHECKPOINT)[:3]


def _computing_in_fp32(clip):
    """Return a CLIP as newer hosts make it."""
    computing = clip.clone()
    computing.patcher.add_object_patch("manual_cast_dtype", torch.float32)
    return computing


def _retyped(types):
    """Return the loaded models with weights of another type in memory, as a host with a GPU keeps them."""
    model, clip, vae = _load()
    for module in (model.model.diffusion_model, clip.cond_stage_model, vae.first_stage_model):
        for dtype in types:
            module.to(dtype)
    return model, clip, vae


def _fill_free_memory() -> None:
    """Fill free memory with values, because the host may reuse it for weights missing from a checkpoint."""
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
