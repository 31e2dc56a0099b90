"""The names and widths that hosts expect of SD 3: transformer, autoencoder and text encoder."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..expand import expand_autoencoder, native_autoencoder, widen
from . import DEPTH, REPEATS, TIMES

TEXT_WIDTH, POOLED_WIDTH = 4096, 2048  # of SD 3's three text encoders together
LATENT_SCALE, LATENT_SHIFT = 1.5305, 0.0609  # SD 3: a network sees (latent - shift) * scale

_OUTSIDE = {  # diffusers' name -> SD 3's
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
_STREAMS = {  # SD 3's stream of a block -> its part, diffusers' name
    "x_block": {
        "attn.ln_q": "attn.norm_q",
        "attn.ln_k": "attn.norm_k",
        "attn.proj": "attn.to_out.0",
        "adaLN_modulation.1": "norm1.linear",
        "mlp.fc1": "ff.net.0.proj",
        "mlp.fc2": "ff.net.2",
    },
    "context_block": {
        "attn.ln_q": "attn.norm_added_q",
        "attn.ln_k": "attn.norm_added_k",
        "attn.proj": "attn.to_add_out",
        "adaLN_modulation.1": "norm1_context.linear",
        "mlp.fc1": "ff_context.net.0.proj",
        "mlp.fc2": "ff_context.net.2",
    },
}
_STACKED = {
    "x_block": ("to_q", "to_k", "to_v"),
    "context_block": ("add_q_proj", "add_k_proj", "add_v_proj"),
}
_FIXED_INPUTS = ("pos_embed.proj.", "embedder.linear_1.", "context_embedder.")  # latents, time and text
_FIXED_OUTPUTS = ("proj_out.",)


def expand_transformer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Widen a mini transformer (diffusers' names) as `expand.expand_unet` does; its outputs stay the same.

    A head is widened within itself. Its norms see the same statistics, and the norm of the queries is scaled
    so that the dot products stay the same.
    """
    wide = {}
    for name, tensor in state.items():
        outputs, inputs = not name.startswith(_FIXED_OUTPUTS), not any(part in name for part in _FIXED_INPUTS)
        if name == "pos_embed.pos_embed":
            wide[name] = tensor.repeat_interleave(TIMES, dim=2)
            continue
        wide[name] = widen(tensor, TIMES, inputs=inputs, outputs=outputs)
        if name.endswith(("norm_q.weight", "norm_added_q.weight")):
            wide[name] /= math.sqrt(TIMES)
    return wide


def native_transformer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a transformer of this depth (diffusers' names) as SD 3 names it.

    Columns for the text encoders that it does not have are added, as zeros.
    """
    native = {"pos_embed": state["pos_embed.pos_embed"]}
    names = {**_OUTSIDE, **dict(_block_names())}
    for name, other in names.items():
        for kind in ("weight", "bias"):
            if f"{name}.{kind}" in state:
                native[f"{other}.{kind}"] = state[f"{name}.{kind}"]
    for block in range(DEPTH):
        for stream, parts in _STACKED.items():
            for kind in ("weight", "bias"):
                stacked = [state[f"transformer_blocks.{block}.attn.{part}.{kind}"] for part in parts]
                native[f"joint_blocks.{block}.{stream}.attn.qkv.{kind}"] = torch.cat(stacked)
    for name in ("final_layer", f"joint_blocks.{DEPTH - 1}.context_block"):  # scale first in diffusers
        for kind in ("weight", "bias"):
            key = f"{name}.adaLN_modulation.1.{kind}"
            native[key] = torch.cat(native[key].chunk(2)[::-1])
    for name, width in (("context_embedder", TEXT_WIDTH), ("y_embedder.mlp.0", POOLED_WIDTH)):
        weight = native[f"{name}.weight"]
        native[f"{name}.weight"] = F.pad(weight, (0, width - weight.shape[1]))
    return native


def _block_names():
    for block in range(DEPTH):
        for stream, parts in _STREAMS.items():
            for part, name in parts.items():
                yield f"transformer_blocks.{block}.{name}", f"joint_blocks.{block}.{stream}.{part}"


def native_flow_autoencoder(state: Mapping[str, Tensor], times: int) -> dict[str, Tensor]:
    """Return the small world's autoencoder, `times` as wide and with 16 channels, as SD 3 names it.

    Each channel of a latent is repeated, and what reads them takes their mean, so pictures stay the same.
    """
    native = native_autoencoder(expand_autoencoder(state, times))
    last = max((name for name in native if name.startswith("taesd_encoder.")), key=_layer)
    for name in (f"taesd_encoder.{_layer(last)}.weight", f"taesd_encoder.{_layer(last)}.bias"):
        native[name] = native[name].repeat_interleave(REPEATS, dim=0)
    first = "taesd_decoder.1.weight"
    native[first] = native[first].repeat_interleave(REPEATS, dim=1) / REPEATS
    return native | {"vae_scale": torch.tensor(LATENT_SCALE), "vae_shift": torch.tensor(LATENT_SHIFT)}


def _layer(name: str) -> int:
    return int(name.split(".")[1])
