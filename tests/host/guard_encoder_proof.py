"""Read a prompt as guards do, with the CLIP-L of SD 1.5, SD 3 and SDXL, and compare.

    python guard_encoder_proof.py COMFYUI_FOLDER SD15_CHECKPOINT SD3_CHECKPOINT PROMPT PACK_PARENT

Prints one line of JSON. Before and after that the prompt is encoded for an image. PACK_PARENT contains the
pack under the name `alignguard`.
"""

import json
import sys

HOST, SD15, SD3, PROMPT, PACK_PARENT = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path[:0] = [HOST, PACK_PARENT]

import comfy.options

comfy.options.enable_args_parsing()

import comfy.sd
import comfy.supported_models
import torch
from alignguard.alignguard_nodes import host

from built_flow import built_clip, fill

FEW_LAYERS = {"clip_g_model_config": {"num_hidden_layers": 3}}  # the prompt is read off the last but one
OTHERS = ("flux1", "zimage")  # the first reads the summary of CLIP-L alone, the second nothing of it


def main() -> None:
    """Print the names of the encoders, the shapes of what they read, and the largest differences."""
    with torch.inference_mode():  # as the host runs a graph
        clips = [clip_of(SD15), clip_of(SD3)]
        clips.append(sdxl_clip(clips[0]))
        encoders = [host.guard_encoder(clip) for clip in clips]
        before = [encoded(clip) for clip in clips]
        first, *others = (encoder.blocks(PROMPT) for encoder in encoders)
        after = [encoded(clip) for clip in clips]
    results = {
        "ids": [encoder.id for encoder in encoders],
        "shapes": [list(block.shape) for block in first],
        "differences": [largest_difference(first, blocks) for blocks in others],
        "change": largest_difference(before, after),
        "refused": [family for family in OTHERS if is_refused(built_clip(family, SD15))],
    }
    sys.stdout.write(json.dumps(results) + "\n")


def clip_of(checkpoint: str):
    """Return the CLIP of a checkpoint."""
    return comfy.sd.load_checkpoint_guess_config(checkpoint, output_vae=False, output_model=False)[1]


def sdxl_clip(sd15_clip):
    """Return a CLIP of SDXL with the CLIP-L of another and a small CLIP-G with random weights."""
    clip = comfy.sd.CLIP(comfy.supported_models.SDXL({}).clip_target(), model_options=FEW_LAYERS)
    fill(clip.cond_stage_model.clip_g)
    clip.cond_stage_model.clip_l.load_sd(dict(sd15_clip.cond_stage_model.clip_l.transformer.state_dict()))
    return clip


def encoded(clip) -> torch.Tensor:
    """Return the embeddings that an image is drawn from."""
    return clip.encode_from_tokens(clip.tokenize(PROMPT))


def largest_difference(some, others) -> float:
    """Return the largest difference of any number of tensors from as many others."""
    return max(float((one - other).abs().max()) for one, other in zip(some, others, strict=True))


def is_refused(clip) -> bool:
    """Return whether no guard takes a CLIP."""
    try:
        host.guard_encoder(clip)
    except ValueError as error:
        return "does not read prompts with CLIP-L" in str(error)
    return False


if __name__ == "__main__":
    main()
