"""Translate LoRA key dialects (Kohya, diffusers, PEFT, native) to and from one form: path -> `LowRank`.

A key has the form `<prefix><module><suffix>`. To read one more suffix, add a row to `_SUFFIXES` or, for what
is left out, to `_BESIDE`; `layer_names` knows prefixes and modules, `lora_parts` everything else.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.flow import FLOW_FAMILIES
from .convolutions import as_stored, kernel_of
from .layer_names import HOST_PREFIX, diffusers_path, is_layer, is_norm, kohya_name
from .lora_parts import (
    BIASES,
    FULL_WEIGHTS,
    LEFT_OUT_KINDS,
    NORMS,
    first,
    other_method,
    part_of_file,
    refusal,
)
from .low_rank import LowRank

_SUFFIXES = {  # the ending of the key in the file -> which factor it is
    ".lora_up.weight": "up",  # Kohya, and the host's own saver
    ".lora_down.weight": "down",
    ".lora_mid.weight": "mid",
    ".lora.up.weight": "up",  # diffusers
    ".lora.down.weight": "down",
    "_lora.up.weight": "up",  # diffusers of 2023, behind `.processor.`
    "_lora.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_B.weight": "up",  # PEFT, and diffusers since
    ".lora_A.weight": "down",
    ".lora_B": "up",
    ".lora_A": "down",
    ".alpha": "alpha",
}
_BESIDE = {  # endings of keys of a layer or norm that are left out: full differences, norms and biases
    ".w_norm": NORMS,  # LyCORIS
    ".b_norm": NORMS,
    ".diff": FULL_WEIGHTS,  # LyCORIS, and the host's own saver
    ".set_weight": FULL_WEIGHTS,
    ".diff_b": BIASES,
    ".lora_B.bias": BIASES,  # PEFT's options lora_bias, bias and modules_to_save
    ".base_layer.bias": BIASES,
    ".modules_to_save.weight": FULL_WEIGHTS,
    ".modules_to_save.bias": BIASES,
    ".bias": BIASES,
    ".weight": FULL_WEIGHTS,
}
_ADAPTER_NAME = r"(\.lora_[AB]|\.modules_to_save)\.[^.]+(\.weight|\.bias)$"  # `.lora_A.default.weight`


class FileKeys(NamedTuple):
    """The keys of a LoRA file, sorted by what they are.

    Attributes:
        layers: diffusers path -> `up`, `down`, `mid`, `alpha` -> key.
        left_out: kind -> number of keys that are not LoRA layers of the UNet.
    """

    layers: dict[str, dict[str, str]]
    left_out: dict[str, int]


@dataclass(frozen=True)
class Coverage:
    """Layers of an expert that a model has, and layers that it lacks."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def total(self) -> int:
        """Number of layers of the expert."""
        return len(self.matched) + len(self.missing)

    def sentence(self) -> str:
        """Return the counts, and the first missing layers by name, for people."""
        if not self.missing:
            return f"All {self.total} layers of the expert match this model."
        return (
            f"{len(self.matched)} of {self.total} layers of the expert match this model. "
            f"Missing: {first(self.missing)}."
        )


def coverage(expert_modules: Iterable[str], model_modules: Iterable[str]) -> Coverage:
    """Compare the layers of an expert with those of a model, both as diffusers paths."""
    wanted, present = sorted(set(expert_modules)), set(model_modules)
    return Coverage(
        tuple(name for name in wanted if name in present),
        tuple(name for name in wanted if name not in present),
    )


def group_keys(keys: Iterable[str]) -> FileKeys:
    """Sort the keys of a LoRA file in any dialect.

    Raises:
        ValueError: if a key is neither of a LoRA for a UNet nor of a part that can be left out (the first few
            are named), belongs to another method than LoRA, or a layer lacks a factor.
    """
    grouped: dict[str, dict[str, str]] = {}
    counts: Counter[str] = Counter()
    unknown: dict[str, str | None] = {}
    for key in keys:
        module, role = _locate(key)
        if module is None and role in LEFT_OUT_KINDS:
            counts[role] += 1
        elif module is None:
            unknown[key] = role
        else:
            keys_of_module = grouped.setdefault(module, {})
            if role in keys_of_module:
                raise ValueError(f"{module} occurs twice in one file: {keys_of_module[role]} and {key}.")
            keys_of_module[role] = key
    if unknown or not grouped:
        raise ValueError(refusal(unknown, counts))
    for module, keys_of_module in grouped.items():
        if not {"up", "down"} <= keys_of_module.keys():
            raise ValueError(
                f"{module} has only {first(keys_of_module.values())}; its up and down factors must both "
                "exist."
            )
    return FileKeys(grouped, dict(sorted(counts.items())))


def to_kohya(layers: Mapping[str, LowRank], family: str = "") -> dict[str, Tensor]:
    """Return Kohya keys: lora_up, lora_down and an explicit alpha equal to the rank, which means scale 1.

    Args:
        layers: updates by diffusers path.
        family: base model family, which decides which factors are 4-D, see `kernel_of`.
    """
    state: dict[str, Tensor] = {}
    for module, layer in layers.items():
        name, kernel = kohya_name(module), kernel_of(module, family)
        state[f"{name}.lora_up.weight"] = as_stored(layer.up, kernel, is_down=False)
        state[f"{name}.lora_down.weight"] = as_stored(layer.down, kernel, is_down=True)
        state[f"{name}.alpha"] = torch.tensor(float(layer.rank))
    return state


def to_native(layers: Mapping[str, LowRank]) -> dict[str, Tensor]:
    """Return a flow's keys in the host, `diffusion_model.<path>.lora_A.weight`; alpha equals the rank."""
    state = _dotted(layers, HOST_PREFIX, ".lora_B.weight", ".lora_A.weight")
    alphas = {f"{HOST_PREFIX}{module}.alpha": torch.tensor(float(layers[module].rank)) for module in layers}
    return state | alphas


def to_file(layers: Mapping[str, LowRank], family: str = "") -> dict[str, Tensor]:
    """Return the keys that an expert is written with: `to_native` of a flow, `to_kohya` of a UNet."""
    return to_native(layers) if family in FLOW_FAMILIES else to_kohya(layers, family)


def to_diffusers(layers: Mapping[str, LowRank]) -> dict[str, Tensor]:
    """Return the keys that diffusers' `load_lora_weights` reads, `unet.<path>.lora.up.weight`; scale 1."""
    return _dotted(layers, "unet.", ".lora.up.weight", ".lora.down.weight")


def to_peft(layers: Mapping[str, LowRank]) -> dict[str, Tensor]:
    """Return PEFT's keys, `base_model.model.<path>.lora_A.weight`; load them with lora_alpha = r."""
    return _dotted(layers, "base_model.model.", ".lora_B.weight", ".lora_A.weight")


def _dotted(layers: Mapping[str, LowRank], prefix: str, up: str, down: str) -> dict[str, Tensor]:
    state = {f"{prefix}{module}{up}": layer.up for module, layer in layers.items()}
    return state | {f"{prefix}{module}{down}": layer.down for module, layer in layers.items()}


def split_key(key: str) -> tuple[str, str]:
    """Return the name of the layer in the key of a factor, and the ending; other keys have no ending."""
    plain = re.sub(_ADAPTER_NAME, r"\1\2", key)
    suffix = next((suffix for suffix in _SUFFIXES if plain.endswith(suffix)), "")
    return plain.removesuffix(suffix), suffix


def _locate(key: str) -> tuple[str | None, str | None]:
    """Return a layer's path and the factor that a key is; or None, and its kind, its method, or None."""
    part = part_of_file(key)
    if part:
        return None, part
    name, suffix = split_key(key)
    if suffix:
        path = diffusers_path(name)
        return (path, _SUFFIXES[suffix]) if is_layer(path) else (None, None)
    ending = next((ending for ending in _BESIDE if name.endswith(ending)), "")
    path = diffusers_path(name.removesuffix(ending)) if ending else ""
    if is_norm(path):
        return None, NORMS
    return None, (_BESIDE[ending] if is_layer(path) else other_method(key))
