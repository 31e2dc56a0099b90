"""A checkpoint in SD 3's layout with random weights, small enough for tests: it draws nothing."""

from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from training.system.tensors import open_tensors, write_tensors

DEPTH = 2  # blocks and heads; the host reads the width off it, 64 for each
HEAD, CHANNELS, PATCH, SIDE = 64, 16, 2, 32  # SIDE: of the largest picture, in patches
TEXT, POOLED, TIMES = 4096, 2048, 256
_CLIP = "cond_stage_model.transformer."


def sd3_checkpoint(path: Path, clip_from: Path, *, depth: int = DEPTH, seed: int = 0) -> Path:
    """Write the checkpoint.

    Args:
        path: a new `.safetensors` file.
        clip_from: SD 1.5 checkpoint, whose CLIP-L becomes the only text encoder.
        depth: blocks and heads.
        seed: of the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {
        f"model.diffusion_model.{name}": _random(name, shape, generator)
        for name, shape in transformer_shapes(depth).items()
    }
    state |= autoencoder_state(seed)
    with open_tensors(clip_from) as tensors:
        state |= {
            f"text_encoders.clip_l.transformer.{name.removeprefix(_CLIP)}": tensors[name].clone()
            for name in tensors
            if name.startswith(f"{_CLIP}text_model.")
        }
    return write_tensors(path, state, {})


def transformer_shapes(depth: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of the transformer by its name."""
    width = HEAD * depth
    linear = {  # name -> (outputs, inputs)
        "t_embedder.mlp.0": (width, TIMES),
        "t_embedder.mlp.2": (width, width),
        "y_embedder.mlp.0": (width, POOLED),
        "y_embedder.mlp.2": (width, width),
        "context_embedder": (width, TEXT),
        "final_layer.linear": (PATCH * PATCH * CHANNELS, width),
        "final_layer.adaLN_modulation.1": (2 * width, width),
    }
    for block in range(depth):
        for stream in ("context_block", "x_block"):
            is_end = stream == "context_block" and block == depth - 1  # nothing reads the text after it
            layers = {"attn.qkv": (3 * width, width), "adaLN_modulation.1": (6 * width, width)}
            if is_end:
                layers["adaLN_modulation.1"] = (2 * width, width)
            else:
                layers |= {"attn.proj": (width, width)}
                layers |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
            linear |= {f"joint_blocks.{block}.{stream}.{name}": shape for name, shape in layers.items()}
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, SIDE * SIDE, width),
        "x_embedder.proj.weight": (width, CHANNELS, PATCH, PATCH),
        "x_embedder.proj.bias": (width,),
    }
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def autoencoder_state(seed: int) -> dict[str, Tensor]:
    """Return a random autoencoder of SD 3's latents under the names of its host."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoencoderTiny(latent_channels=CHANNELS)
    state = {
        "first_stage_model.vae_scale": torch.tensor(1.0),
        "first_stage_model.vae_shift": torch.tensor(0.0),
    }
    for name, tensor in model.state_dict().items():
        part, _, number, rest = name.split(".", 3)
        state[f"first_stage_model.taesd_{part}.{int(number) + (part == 'decoder')}.{rest}"] = tensor
    return state


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    values = torch.randn(shape, generator=generator)
    if name == "pos_embed" or len(shape) == 1:
        return 0.1 * values
    return values / (values[0].numel() ** 0.5)
