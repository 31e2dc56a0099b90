"""Lend the UNet of a patched MODEL, and compare it with what the host itself samples with.

    python baking_proof.py COMFYUI_FOLDER CHECKPOINT EXPERT PACK_PARENT

Prints one line of JSON. PACK_PARENT holds the pack under the name `alignguard`.
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
from torch import Tensor

SCHEDULED, QUANTISED, PLAIN = "scheduled", "quantised", "plain"


def main() -> None:
    """Bake, compare, and try what is refused."""
    base, *_ = comfy.sd.load_checkpoint_guess_config(CHECKPOINT, output_vae=False, output_clip=False)
    lora = comfy.utils.load_torch_file(EXPERT)
    patched, _ = comfy.sd.load_lora_for_models(base, None, lora, 0.7, 0.0)
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    inputs = random_inputs()
    told = {PLAIN: refusal(patched), "untouched": refusal(base)}
    with host.outside_inference_mode(), host.borrowed_unet(patched, "fp32", bake_patches=True) as lent:
        with torch.no_grad():
            ours = lent.unet(*inputs).sample
        told |= {"num_baked": lent.num_baked, "layers": sum(key.endswith(".alpha") for key in lora)}
    after = base.model.state_dict()
    told["shared_weights_changed"] = sum(not torch.equal(before[name], after[name]) for name in before)
    with torch.inference_mode():
        told["change"] = difference(ours, host_prediction(base, inputs))
        patched.patch_model()
        told["difference"] = difference(ours, host_prediction(patched, inputs))
        patched.unpatch_model()
    scheduled = base.clone()
    scheduled.add_hook_patches(
        comfy.hooks.WeightHook(), {key: patched.patches[key][0][1] for key in patched.patches}
    )
    told[SCHEDULED] = refusal(scheduled, bake_patches=True)
    key = next(iter(patched.patches))
    comfy.utils.set_attr_param(base.model, key, before[key].to(torch.float8_e4m3fn))
    told[QUANTISED] = refusal(patched, bake_patches=True)
    sys.stdout.write(json.dumps(told) + "\n")


def refusal(model, **options) -> str:
    """Return why a MODEL is not lent, or nothing."""
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
    """Run the UNet of a MODEL as its weights are now."""
    noisy, timesteps, text = inputs
    return model.model.diffusion_model(noisy, timesteps, context=text)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


if __name__ == "__main__":
    main()
