"""The border to ComfyUI: the only modules that import comfy.* or folder_paths.

The host's conventions end here: images (n, h, w, 3) in [0, 1], unscaled latents, model patchers, inference
mode, names from widgets. This package returns what `training` expects.
"""

from .apply import apply_expert, check_range, layers_on
from .drawing_facts import drawing_facts
from .dual_latent import guide_to
from .encoders import (
    Encoders,
    changed_conditioning,
    encode_prompt,
    encode_prompts,
    encode_text,
    encoders,
    guard_encoder,
    latent_step,
)
from .feedback import Blocked, check_cancel, progress
from .folders import (
    EXPERTS,
    expert_files,
    expert_path,
    guard_files,
    guard_path,
    input_folder,
    judges_folder,
    model_files,
    model_path,
    output_folder,
    private_folder,
    register_folders,
)
from .pictures import clip_embed, image_of, image_tensor, pictures_of, vae_latents
from .sampling import SAMPLERS, SCHEDULERS, HostDraw, Sampling
from .schema import more_sockets, node_schema
from .unet import BorrowedUnet, borrowed_unet, check_trainable, family_of, outside_inference_mode

__all__ = [
    "Blocked",
    "BorrowedUnet",
    "EXPERTS",
    "Encoders",
    "HostDraw",
    "SAMPLERS",
    "SCHEDULERS",
    "Sampling",
    "apply_expert",
    "borrowed_unet",
    "changed_conditioning",
    "check_cancel",
    "check_range",
    "check_trainable",
    "clip_embed",
    "drawing_facts",
    "encode_prompt",
    "encode_prompts",
    "encode_text",
    "encoders",
    "expert_files",
    "expert_path",
    "family_of",
    "guard_encoder",
    "guard_files",
    "guard_path",
    "guide_to",
    "image_of",
    "image_tensor",
    "input_folder",
    "judges_folder",
    "latent_step",
    "layers_on",
    "model_files",
    "model_path",
    "more_sockets",
    "node_schema",
    "output_folder",
    "outside_inference_mode",
    "pictures_of",
    "private_folder",
    "progress",
    "register_folders",
    "vae_latents",
]
