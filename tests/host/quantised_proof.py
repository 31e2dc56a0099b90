"""Draw with an expert on checkpoints that ComfyUI stores quantised: fp8, mxfp8, nvfp4 and int8.

    python quantised_proof.py COMFYUI_FOLDER CHECKPOINT EXPERT PACK_PARENT FOLDER

The host's own code quantises the attention and feed-forward layers of the UNet; the stock loader loads what
is written into FOLDER. Prints one line of JSON: format -> figures, empty if the host has no such code.
PACK_PARENT contains the pack under the name `alignguard`.
"""

import json
import sys
from pathlib import Path

HOST, CHECKPOINT, EXPERT, PACK_PARENT, FOLDER = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path[:0] = [HOST, PACK_PARENT]

import comfy.options

comfy.options.enable_args_parsing()

import comfy.quant_ops
import comfy.sd
import comfy.utils
import torch
from alignguard.alignguard_nodes import host
from alignguard.alignguard_nodes.host.sampling import HostDraw, Sampling
from alignguard.training.experts.expert import load_expert
from alignguard.training.mini.shipped import load_judge
from safetensors.torch import save_file

FORMATS = ("float8_e4m3fn", "mxfp8", "nvfp4", "int8_tensorwise")
PROMPTS = ("a white skull on a black ground", "a red skull on a brown ground", "a red star on a black ground")
SAMPLING = Sampling("ddim", "normal", steps=20, cfg=2.0, resolution=64)
READ_BY_HOST = "attn2.to_k"  # its shape tells the host the model's family, and nvfp4 halves it
RANGE = (0.0, 0.999)  # of the layers' outputs, not of their weights


def main() -> None:
    """Draw with every format that the host can write."""
    results = {}
    if hasattr(comfy.quant_ops.QuantizedTensor, "state_dict"):
        for form in FORMATS:
            if form in comfy.quant_ops.QUANT_ALGOS:
                with torch.inference_mode():  # as the host runs its nodes
                    results[form] = on(form)
    sys.stdout.write(json.dumps(results) + "\n")


def on(form: str) -> dict:
    """Return what is drawn on a checkpoint in a format, and what the pack says of it."""
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(quantised(form)))
    expert = load_expert(Path(EXPERT))
    facts = host.drawing_facts(model, clip, vae)
    whole, _ = host.apply_expert(model, expert, strength=1.0)
    ranged, _ = host.apply_expert(model, expert, strength=1.0, start_percent=RANGE[0], end_percent=RANGE[1])
    stock = comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(EXPERT), 1.0, 0.0)[0]
    patched = {"base": model, "expert": whole, "expert on a range": ranged}
    shown = {name: drawn(one, clip, vae, PROMPTS) for name, one in patched.items()}
    _, first = drawn(stock, clip, vae, PROMPTS[:1])
    formats = [getattr(module, "quant_format", None) for module in model.model.diffusion_model.modules()]
    try:
        host.check_trainable(model, bake_patches=True)
        refusal = ""
    except ValueError as error:
        refusal = str(error)
    return {
        "quantised layers": formats.count(form),
        "icons": {name: icons for name, (icons, _) in shown.items()},
        "from stock": float((shown["expert"][1][:1] - first).abs().max()),
        "same facts after drawing": host.drawing_facts(model, clip, vae) == facts,
        "refusal": refusal,
    }


def quantised(form: str) -> Path:
    """Write the checkpoint with the layers of its transformers in a format."""
    layout = comfy.quant_ops.QUANT_ALGOS[form]["comfy_tensor_layout"]
    state = comfy.utils.load_torch_file(CHECKPOINT)
    keys = [key for key in state if "transformer_blocks" in key and state[key].ndim == 2]
    for key in [key for key in keys if READ_BY_HOST not in key]:
        name = key.removesuffix("weight")
        weight = comfy.quant_ops.QuantizedTensor.from_float(state.pop(key).bfloat16(), layout)
        state |= weight.state_dict(key)
        state[f"{name}comfy_quant"] = torch.tensor(
            list(json.dumps({"format": form}).encode()), dtype=torch.uint8
        )
    path = Path(FOLDER) / f"{form}.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    return path


def drawn(model, clip, vae, prompts) -> tuple[list[str], torch.Tensor]:
    """Return the icon on each picture as the judge sees it, and the pictures, (n, 3, 64, 64) in [0, 1]."""
    draw = HostDraw(model, clip, vae, SAMPLING)
    pictures = torch.cat([draw(prompt, seed=seed) for seed, prompt in enumerate(prompts)])
    return [verdict.icon for verdict in load_judge().look(pictures * 2 - 1)], pictures


if __name__ == "__main__":
    main()
