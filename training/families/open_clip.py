"""OpenCLIP's text encoder under the names of a checkpoint, brought to those of transformers."""

import re
from collections.abc import Mapping

from torch import Tensor

_ENDS = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")  # in this order in one tensor


def from_open_clip(state: Mapping[str, Tensor], *, drop_last: bool) -> dict[str, Tensor]:
    """Return the tensors by transformers' names.

    Args:
        state: tensors without a prefix, such as `transformer.resblocks.0.ln_1.weight`; all of the layers.
        drop_last: leave out the last layer, so that the final norm follows the one before it.

    Returns:
        Tensors such as `encoder.layers.0.layer_norm1.weight`; what is not known keeps its name.
    """
    layers = [int(found[1]) for found in map(_LAYER.fullmatch, state) if found]
    last = max(layers, default=0)
    renamed: dict[str, Tensor] = {}
    for name in state:
        found = _LAYER.fullmatch(name)
        if name in ("logit_scale", "attn_mask") or (drop_last and found and int(found[1]) == last):
            continue
        if name == "text_projection":  # multiplied from the right there
            renamed["text_projection.weight"] = state[name].T
        elif found:
            renamed |= _layer(f"encoder.layers.{found[1]}.", found[2], state[name])
        else:
            renamed[_ENDS.get(name, name)] = state[name]
    return renamed


def _layer(prefix: str, name: str, tensor: Tensor) -> dict[str, Tensor]:
    if name.startswith("attn.in_proj_"):
        kind = name.removeprefix("attn.in_proj_")
        parts = zip(_PROJECTIONS, tensor.chunk(3), strict=True)
        return {f"{prefix}self_attn.{part}.{kind}": own for part, own in parts}
    part, _, kind = name.rpartition(".")
    return {f"{prefix}{_PARTS.get(part, part)}.{kind}": tensor}
