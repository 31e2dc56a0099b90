"""Borrow the UNet of a patched MODEL and compare it with the UNet that the host samples with.

    python baking_proof.py COMFYUI_FOLDER CHECKPOINT EXPERT PACK_PARENT

Prints one line of JSON. PACK_PARENT contains the pack under the name `alignguard`.
"""

import json
import sys

HOST, CHECKPOINT, EXPERT, PACK_PARENT = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path[:0] = [HOST, PACK_PARENT]

import comfy.options

comfy.options.enable_args_parsing()

import comfy.hooks
import comfy.sd
import comfy.utils
import torch
from alignguard.alignguard_nodes import host
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch import Tensor

SCHEDULED, QUANTISED, PLAIN = "scheduled", "quantised", "plain"


def main() -> None:
    """Bake patches, compare the predictions, and collect the refusals."""
    base, *_ = comfy.sd.load_checkpoint_guess_config(CHECKPOINT, output_vae=False, output_clip=False)
    lora = comfy.utils.load_torch_file(EXPERT)
    patched, _ = comfy.sd.load_lora_for_models(base, None, lora, 0.7, 0.0)
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    inputs = random_inputs()
    results = {PLAIN: refusal(patched), "untouched": refusal(base)}
    with host.outside_inference_mode(), host.borrowed_unet(patched, "fp32", bake_patches=True) as lent:
        with torch.no_grad():
            ours = lent.unet(*inputs).sample
        results |= {"num_baked": lent.num_baked, "layers": sum(key.endswith(".alpha") for key in lora)}
    after = base.model.state_dict()
    results["shared_weights_changed"] = sum(not torch.equal(before[name], after[name]) for name in before)
    with torch.inference_mode():
        results["change"] = difference(ours, host_prediction(base, inputs))
        patched.patch_model()
        results["difference"] = difference(ours, host_prediction(patched, inputs))
        patched.unpatch_model()
    scheduled = base.clone()
    scheduled.add_hook_patches(
        comfy.hooks.WeightHook(), {key: patched.patches[key][0][1] for key in patched.patches}
    )
    results[SCHEDULED] = refusal(scheduled, bake_patches=True)
    results["changed"] = {name: refusal(model, bake_patches=True) for name, model in changed(patched).items()}
    results["guided"] = refusal(guided(patched), bake_patches=True)
    key = next(iter(patched.patches))
    comfy.utils.set_attr_param(base.model, key, before[key].to(torch.float8_e4m3fn))
    results[QUANTISED] = refusal(patched, bake_patches=True)
    sys.stdout.write(json.dumps(results) + "\n")


def changed(model) -> dict:
    """Return copies whose UNet is changed in other ways than by its weights, by the name in the refusal."""

    def nothing(*args, **kwargs):
        raise AssertionError("called although nothing is drawn")

    adders = {
        "model_function_wrapper": lambda copy: copy.set_model_unet_function_wrapper(nothing),
        "patches attn1_patch": lambda copy: copy.set_model_attn1_patch(nothing),  # as ToMe
        "patches output_block_patch": lambda copy: copy.set_model_output_block_patch(nothing),  # as FreeU
        "patches_replace attn2": lambda copy: copy.set_model_attn2_replace(nothing, "middle", 0),
        "optimized_attention_override": lambda copy: copy.model_options["transformer_options"].update(
            optimized_attention_override=nothing
        ),
        "diffusion_model.out.2": lambda copy: copy.add_object_patch("diffusion_model.out.2", nothing),
        WrappersMP.DIFFUSION_MODEL: lambda copy: copy.add_wrapper(WrappersMP.DIFFUSION_MODEL, nothing),
        CallbacksMP.ON_PRE_RUN: lambda copy: copy.add_callback(CallbacksMP.ON_PRE_RUN, nothing),
        "motion": lambda copy: copy.set_injections("motion", [nothing]),
    }
    copies = {name: model.clone() for name in adders}
    for name, add in adders.items():
        add(copies[name])
    return copies


def guided(model):
    """Return a copy with every change that acts only on predictions."""

    def unchanged(executor, *args):
        return executor(*args)

    copy = model.clone()
    copy.set_model_sampler_cfg_function(lambda args: args["cond"])
    copy.set_model_sampler_pre_cfg_function(lambda args: args["conds_out"])
    copy.set_model_sampler_post_cfg_function(lambda args: args["denoised"])
    copy.add_wrapper(WrappersMP.OUTER_SAMPLE, unchanged)
    copy.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "torch.compile", unchanged)
    return copy


def refusal(model, **options) -> str:
    """Return the message that refuses to lend the UNet of a MODEL, or an empty string."""
    try:
        with host.borrowed_unet(model, "fp32", **options):
            return ""
    except ValueError as error:
        return str(error)


def random_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Return latents, timesteps and text embeddings."""
    generator = torch.Generator().manual_seed(1)
    noisy, text = (torch.randn(shape, generator=generator) for shape in ((2, 4, 8, 8), (2, 77, 768)))
    return noisy, torch.tensor([10, 900]), text


def host_prediction(model, inputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Run the UNet of a MODEL with its current weights."""
    noisy, timesteps, text = inputs
    return model.model.diffusion_model(noisy, timesteps, context=text)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


if __name__ == "__main__":
    main()
