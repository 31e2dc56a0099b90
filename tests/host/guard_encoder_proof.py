"""Read a prompt as guards do, with the CLIP-L of two checkpoints, and compare.

    python guard_encoder_proof.py COMFYUI_FOLDER FIRST_CHECKPOINT SECOND_CHECKPOINT PROMPT PACK_PARENT

Prints one line of JSON. PACK_PARENT contains the pack under the name `alignguard`.
"""

import json
import sys

HOST, FIRST, SECOND, PROMPT, PACK_PARENT = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path[:0] = [HOST, PACK_PARENT]

import comfy.options

comfy.options.enable_args_parsing()

import comfy.sd
import torch
from alignguard.alignguard_nodes import host


def main() -> None:
    """Print both names of the encoder, the shapes of what it reads, and the largest difference."""
    with torch.inference_mode():  # as the host runs a graph
        encoders = [host.guard_encoder(clip_of(checkpoint)) for checkpoint in (FIRST, SECOND)]
        first, second = (encoder.blocks(PROMPT) for encoder in encoders)
    differences = [float((one - other).abs().max()) for one, other in zip(first, second, strict=True)]
    results = {
        "ids": [encoder.id for encoder in encoders],
        "shapes": [list(block.shape) for block in first],
        "difference": max(differences),
    }
    sys.stdout.write(json.dumps(results) + "\n")


def clip_of(checkpoint: str):
    """Return the CLIP of a checkpoint."""
    return comfy.sd.load_checkpoint_guess_config(checkpoint, output_vae=False, output_model=False)[1]


if __name__ == "__main__":
    main()
