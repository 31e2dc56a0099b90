"""Draw with experts on a part of the sampling, as the pack does it and by the host's own hook nodes.

    python ranged_proof.py COMFYUI_FOLDER CHECKPOINT EXPERT OTHER_EXPERT PACK_PARENT

Prints one line of JSON. PACK_PARENT contains the pack under the name `alignguard`.
"""

import json
import sys
from pathlib import Path

HOST, CHECKPOINT, EXPERT, OTHER, PACK_PARENT = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path[:0] = [HOST, PACK_PARENT]

import comfy.options

comfy.options.enable_args_parsing()

import comfy.hooks
import comfy.model_patcher
import comfy.sample
import comfy.sd
import comfy.utils
import torch
from alignguard.alignguard_nodes import host
from alignguard.training.experts.expert import load_expert
from comfy.patcher_extension import WrappersMP
from torch import Tensor

RANGES = {"early": (0.0, 0.4), "late": (0.4, 1.0), "middle": (0.2, 0.7), "nearly all": (0.0, 0.999)}
SAMPLERS = ("euler", "heun", "dpmpp_2m", "dpmpp_sde")


class WithoutHooks(comfy.model_patcher.ModelPatcher):
    """A MODEL that refuses hooks as one does that its host loads piece by piece (ModelPatcherDynamic)."""

    def patch_hook_weight_to_device(self, *_, **__):
        raise RuntimeError("Hooks not implemented in ModelPatcherDynamic.")

    patch_cached_hook_weights = patch_hook_weight_to_device


def main() -> None:
    """Compare every range and sampler, then what is stacked, what refuses hooks, and what is left behind."""
    model, clip, *_ = comfy.sd.load_checkpoint_guess_config(CHECKPOINT, output_vae=False)
    with torch.inference_mode():
        conds = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a white skull", "")]
        base = drawn(model, conds)
        results = {"ranges": {}, "samplers": {}}
        for name, ends in RANGES.items():
            results["ranges"][name] = compared(model, conds, base, ends)
        for sampler in SAMPLERS:
            plain = drawn(model, conds, sampler)
            results["samplers"][sampler] = compared(model, conds, plain, RANGES["middle"], sampler)
        results["stacked"] = stacked(model, conds, base)
        results["without hooks"] = on_a_model_without_hooks(model, conds, base)
        results["failed run"] = after_a_failed_run(model, conds, base)
        results["base again"] = difference(drawn(model, conds), base)
        results["hooks left"] = sum(len(module._forward_hooks) for module in model.model.modules())
        results["quantised"] = on_quantised_weights(conds)
    results["refusal"] = refusal(ranged(model, RANGES["early"]))
    sys.stdout.write(json.dumps(results) + "\n")


def ranged(model, ends, file: str = EXPERT, strength: float = 0.8):
    """Return the MODEL with an expert on a part of the sampling."""
    start, end = ends
    options = {"strength": strength, "start_percent": start, "end_percent": end}
    return host.apply_expert(model, load_expert(Path(file)), **options)[0]


def hooked(conds: list, *parts: tuple) -> list:
    """Return conditionings with LoRAs as the hook nodes of the host schedule them: (file, strength, ends)."""
    group = comfy.hooks.HookGroup()
    for file, strength, (start, end) in parts:
        lora = comfy.hooks.create_hook_lora(comfy.utils.load_torch_file(file), strength, 0.0)
        frames = comfy.hooks.HookKeyframeGroup()
        for factor, percent in ((0.0, 0.0), (1.0, start), (0.0, end)):
            frames.add(comfy.hooks.HookKeyframe(factor, percent, guarantee_steps=0))
        lora.set_keyframes_on_hooks(frames)
        group = group.clone_and_combine(lora)
    return [comfy.hooks.set_hooks_for_conditioning(cond, group) for cond in conds]


def drawn(model, conds: list, sampler: str = "euler") -> Tensor:
    """Return the latent that the host samples."""
    latent = torch.zeros(1, 4, 8, 8)
    noise = comfy.sample.prepare_noise(latent, 3)
    options = {"cfg": 3.0, "sampler_name": sampler, "scheduler": "normal", "seed": 3, "disable_pbar": True}
    positive, negative = conds
    return comfy.sample.sample(
        model, noise, steps=6, positive=positive, negative=negative, latent_image=latent, **options
    )


def compared(model, conds, base, ends, sampler: str = "euler") -> dict:
    """Return how far the pack's picture is from the host's own, and from one without an expert."""
    ours = drawn(ranged(model, ends), conds, sampler)
    theirs = drawn(model, hooked(conds, (EXPERT, 0.8, ends)), sampler)
    return {"from hooks": difference(ours, theirs), "from base": difference(ours, base)}


def stacked(model, conds, base) -> dict:
    """Compare two experts on parts of the sampling above a LoRA on all of it, in both orders."""
    early, late = (EXPERT, 0.8, RANGES["early"]), (OTHER, 0.5, RANGES["late"])

    def with_lora(patcher):
        return comfy.sd.load_lora_for_models(patcher, None, comfy.utils.load_torch_file(OTHER), 0.3, 0.0)[0]

    def with_both(patcher):
        return ranged(ranged(patcher, early[2], *early[:2]), late[2], *late[:2])

    ours = drawn(with_both(with_lora(model)), conds)
    theirs = drawn(with_lora(model), hooked(conds, early, late))
    other_order = drawn(with_lora(with_both(model)), conds)
    return {
        "from hooks": difference(ours, theirs),
        "from the other order": difference(ours, other_order),
        "from base": difference(ours, base),
    }


def on_a_model_without_hooks(model, conds, base) -> dict:
    """Draw on a MODEL that refuses hooks, and return what the host's own hook nodes say there."""
    refusing = model.clone()
    refusing.__class__ = WithoutHooks
    ours = drawn(ranged(refusing, RANGES["middle"]), conds)
    result = {
        "from hooks": difference(ours, drawn(model, hooked(conds, (EXPERT, 0.8, RANGES["middle"])))),
        "from base": difference(ours, base),
        "said to hooks": "",
    }
    try:
        drawn(refusing, hooked(conds, (EXPERT, 0.8, RANGES["middle"])))
    except RuntimeError as error:
        result["said to hooks"] = str(error)
    return result


def after_a_failed_run(model, conds, base) -> float:
    """Return how far the base model is from itself after a sampling with an expert broke off."""

    def broken(executor, *args, **kwargs):
        raise InterruptedError

    breaking = ranged(model, RANGES["middle"])
    breaking.add_wrapper(WrappersMP.DIFFUSION_MODEL, broken)
    try:
        drawn(breaking, conds)
    except InterruptedError:
        return difference(drawn(model, conds), base)
    raise AssertionError("the sampling did not break off")


def on_quantised_weights(conds) -> dict:
    """Draw with an expert on a MODEL in fp8, and return why it cannot be trained on."""
    options = {"dtype": torch.float8_e4m3fn}  # as the loader of diffusion models asks for it
    quantised = comfy.sd.load_checkpoint_guess_config(
        CHECKPOINT, output_vae=False, output_clip=False, model_options=options
    )[0]
    base, whole = drawn(quantised, conds), drawn(ranged(quantised, (0.0, 1.0)), conds)
    nearly = drawn(ranged(quantised, RANGES["nearly all"]), conds)
    return {
        "type": str(next(iter(quantised.model.diffusion_model.out[2].parameters())).dtype),
        "whole from base": difference(whole, base),
        "range from whole": difference(nearly, whole),
        "range from base": difference(nearly, base),
        "refusal": refusal(quantised),
    }


def difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    return float((one - other).abs().max() / other.abs().max())


def refusal(model) -> str:
    """Return why a MODEL cannot be trained, or an empty string."""
    try:
        host.check_trainable(model, bake_patches=True)
    except ValueError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main()
