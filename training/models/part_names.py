"""One name for each tensor of text encoders and VAEs, whatever a checkpoint or a folder calls it."""

import re
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from .autoencoder import kl_name, tiny_name
from .text_encoder import from_open_clip

# what hosts, OpenCLIP and transformers put before the names of transformers
_TEXT_PREFIX = re.compile(r"(?:embedders\.0\.)?(?:model\.|transformer\.(?!resblocks))?(?:text_model\.)?")
_POSITIONS = "embeddings.position_ids"  # a constant that some files hold
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_VAE_LEVEL = re.compile(r"encoder\.down\.(\d+)\.")
_TEXT_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")
_ONLY_IN_CHECKPOINTS = ("vae_scale", "vae_shift", "loss.", "text_projection.")

Names = dict[str, tuple[str, Callable[[Tensor], Tensor]]]  # name -> stored key, how to read its tensor


def text_names(keys: Iterable[str]) -> Names:
    """Return transformers' names of the tensors of a text encoder.

    OpenCLIP stores the projections of an attention as one tensor, which therefore has three names.

    Args:
        keys: as stored, without the prefix of the text encoder in a checkpoint.
    """
    names: Names = {}
    for key in keys:
        short = key[_TEXT_PREFIX.match(key).end() :]
        for name in from_open_clip({short: torch.empty(3, 1, device="meta")}, drop_last=False):
            if name != _POSITIONS:
                names[name] = key, partial(_text_tensor, short, name)
    return names


def vae_names(keys: Iterable[str]) -> Names:
    """Return diffusers' names of the tensors of an autoencoder, KL or tiny.

    Args:
        keys: as stored, without the prefix of the VAE in a checkpoint.
    """
    keys = list(keys)
    levels = 1 + max((int(match[1]) for key in keys if (match := _VAE_LEVEL.match(key))), default=0)
    return {_vae_name(key, levels): (key, _as_linear) for key in keys}


def unexplained(checkpoint: Iterable[str], folder: Iterable[str]) -> set[str]:
    """Return the names that only a checkpoint has, of those that a folder of diffusers would have too.

    A folder keeps the scale of latents in its configuration, and leaves out the projection and the last
    layer of a text encoder that the model does not use.

    Args:
        checkpoint: names of one part in the checkpoint.
        folder: names of the same part in the folder.
    """
    folder = set(folder)
    layers = {match[1] for name in folder if (match := _TEXT_LAYER.match(name))}
    spare = f"encoder.layers.{len(layers)}."
    return {name for name in checkpoint if not name.startswith((*_ONLY_IN_CHECKPOINTS, spare))} - folder


def _text_tensor(short: str, name: str, tensor: Tensor) -> Tensor:
    return from_open_clip({short: tensor}, drop_last=False)[name]


def _vae_name(key: str, levels: int) -> str:
    if key.startswith("taesd_"):
        return tiny_name(key)
    block, attention, part = kl_name(key, levels).partition(".attentions.0.")
    word, _, kind = part.rpartition(".")
    return f"{block}{attention}{_OLD_ATTENTION.get(word, word)}.{kind}" if attention else block


def _as_linear(tensor: Tensor) -> Tensor:
    """Return a 1x1 convolution, which old files have in the attention, as the linear layer of today."""
    return tensor.flatten(1) if tensor.ndim == 4 and tensor.shape[2:] == (1, 1) else tensor
