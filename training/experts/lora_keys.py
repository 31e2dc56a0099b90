"""Translate LoRA key dialects (Kohya, diffusers, PEFT, native) to and from one form: UNet path -> `LowRank`.

A key has the form `<prefix><module><suffix>`. To read one more suffix or prefix, add a row to `_SUFFIXES` or
`_PREFIXES`; module names follow the grammar `_MODULE`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .convolutions import as_stored, kernel_of
from .low_rank import LowRank

KOHYA_PREFIX = "lora_unet_"
_PREFIXES = ("base_model.model.unet.", "base_model.model.", "diffusion_model.", "unet.", "")
_SUFFIXES = {  # the ending of the key in the file -> which factor it is
    ".lora_up.weight": "up",  # Kohya
    ".lora_down.weight": "down",
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
_ADAPTER_NAME = r"(\.lora_[AB])\.[^.]+(\.weight)$"  # `.lora_A.default.weight`
_TEXT_ENCODER = r"^(base_model\.model\.)?(lora_te\d?_|text_encoders?(_\d)?\.|lora_prior_te)"
_OTHER_METHODS = r"\.(dora_scale|lora_magnitude_vector\b.*|lora_mid\.weight|hada_\w+|lokr_\w+|oft_\w+)$"

_MODULE = (
    r"(?:(?:down_blocks|up_blocks)\.\d+|mid_block)\."
    r"(?:attentions\.\d+\.(?:proj_in|proj_out|transformer_blocks\.\d+\."
    r"(?:attn[12]\.(?:to_q|to_k|to_v|to_out\.0)|ff\.net\.(?:0\.proj|2)))"
    r"|resnets\.\d+\.(?:time_emb_proj|conv1|conv2|conv_shortcut)"
    r"|(?:downsamplers|upsamplers)\.0\.conv)"
    r"|(?:time_embedding|add_embedding)\.linear_[12]|conv_in|conv_out"
)
# The words between the dots. Kohya joins them by underscores, which the words also contain, so only this list
# tells them apart; a longer word must come before any word that it begins with.
_WORDS = (
    r"down_blocks|up_blocks|mid_block|input_blocks|middle_block|output_blocks|attentions|transformer_blocks|"
    r"attn[12]|to_q|to_k|to_v|to_out|ff|net|proj_in|proj_out|proj|resnets|time_emb_proj|conv_shortcut|conv_in|"
    r"conv_out|conv[12]|conv|downsamplers|upsamplers|time_embedding|add_embedding|linear_[12]|\d+"
)
_KOHYA_NAME = rf"(?:{_WORDS})(?:_(?:{_WORDS}))*"
_KOHYA_WORD = rf"({_WORDS})(?:_|$)"
_NATIVE = r"(?:(input_blocks|output_blocks)\.(\d+)|middle_block)\.1\.(.+)"


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
            f"Missing: {_first(self.missing)}."
        )


def coverage(expert_modules: Iterable[str], model_modules: Iterable[str]) -> Coverage:
    """Compare the layers of an expert with those of a model, both as diffusers paths."""
    wanted, present = sorted(set(expert_modules)), set(model_modules)
    return Coverage(
        tuple(name for name in wanted if name in present),
        tuple(name for name in wanted if name not in present),
    )


def is_layer(module: str) -> bool:
    """Return whether a diffusers path names a UNet layer that a LoRA can change."""
    return bool(re.fullmatch(_MODULE, module))


def kohya_name(module: str) -> str:
    """Return a layer's name in Kohya files: `lora_unet_` and the path with underscores.

    Raises:
        ValueError: if the path is not the diffusers path of a UNet layer.
    """
    if not is_layer(module):
        raise ValueError(f"{module!r} is not the diffusers path of a UNet layer.")
    return KOHYA_PREFIX + module.replace(".", "_")


def module_of_kohya(name: str) -> str:
    """Return the diffusers path of a layer from its Kohya name, SDXL's native names included.

    Raises:
        ValueError: if the name is not the Kohya name of a UNet layer.
    """
    words = name.removeprefix(KOHYA_PREFIX)
    if name == words or not re.fullmatch(_KOHYA_NAME, words):
        raise ValueError(f"{name!r} is not the Kohya name of a UNet layer.")
    return _module(".".join(re.findall(_KOHYA_WORD, words)))


def group_keys(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Group the keys of a LoRA file in any dialect by layer: diffusers path -> `up`, `down`, `alpha` -> key.

    Raises:
        ValueError: if a key does not belong to a UNet LoRA (the first few are named), belongs to a text
            encoder or to another method than LoRA, or a layer lacks a factor.
    """
    grouped: dict[str, dict[str, str]] = {}
    unknown = []
    for key in keys:
        location = _locate(key)
        if location is None:
            unknown.append(key)
            continue
        module, role = location
        keys_of_module = grouped.setdefault(module, {})
        if role in keys_of_module:
            raise ValueError(f"{module} occurs twice in one file: {keys_of_module[role]} and {key}.")
        keys_of_module[role] = key
    if unknown or not grouped:
        raise ValueError(_refusal(unknown))
    for module, keys_of_module in grouped.items():
        if not {"up", "down"} <= keys_of_module.keys():
            raise ValueError(
                f"{module} has only {_first(keys_of_module.values())}; its up and down factors must both "
                "exist."
            )
    return grouped


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


def to_diffusers(layers: Mapping[str, LowRank]) -> dict[str, Tensor]:
    """Return the keys that diffusers' `load_lora_weights` reads, `unet.<path>.lora.up.weight`; scale 1."""
    return _dotted(layers, "unet.", ".lora.up.weight", ".lora.down.weight")


def to_peft(layers: Mapping[str, LowRank]) -> dict[str, Tensor]:
    """Return PEFT's keys, `base_model.model.<path>.lora_A.weight`; load them with lora_alpha = r."""
    return _dotted(layers, "base_model.model.", ".lora_B.weight", ".lora_A.weight")


def _dotted(layers: Mapping[str, LowRank], prefix: str, up: str, down: str) -> dict[str, Tensor]:
    state = {f"{prefix}{module}{up}": layer.up for module, layer in layers.items()}
    return state | {f"{prefix}{module}{down}": layer.down for module, layer in layers.items()}


def _locate(key: str) -> tuple[str, str] | None:
    """Return (diffusers path, up | down | alpha) of a key, or None if it does not belong to a UNet LoRA."""
    plain = re.sub(_ADAPTER_NAME, r"\1\2", key)
    suffix = next((suffix for suffix in _SUFFIXES if plain.endswith(suffix)), None)
    if suffix is None:
        return None
    name = plain.removesuffix(suffix)
    try:
        module = module_of_kohya(name) if name.startswith(KOHYA_PREFIX) else _module_of_dotted(name)
    except ValueError:
        return None
    return module, _SUFFIXES[suffix]


def _module_of_dotted(name: str) -> str:
    prefix = next(prefix for prefix in _PREFIXES if name.startswith(prefix))
    path = name.removeprefix(prefix)
    if ".processor." in path:
        path = re.sub(r"\.to_out$", ".to_out.0", path.replace(".processor.", "."))
    return _module(path)


def _module(path: str) -> str:
    path = _from_native(path)
    if not is_layer(path):
        raise ValueError(f"{path!r} is not the path of a UNet layer.")
    return path


def _from_native(path: str) -> str:
    """Translate a transformer layer's name in the original code, which LoRAs for SDXL use.

    SD 1.5, SD 2.1 and SDXL have three entries per resolution (two residual blocks and a resampler);
    input_blocks starts with the first convolution.
    """
    match = re.fullmatch(_NATIVE, path)
    if not match:
        return path
    side, number, rest = match.groups()
    if side is None:
        return f"mid_block.attentions.0.{rest}"
    level, layer = divmod(int(number) - (side == "input_blocks"), 3)
    if level < 0 or (side == "input_blocks" and layer == 2):
        return path  # the first convolution or a resampler, which has no transformer
    return f"{'down_blocks' if side == 'input_blocks' else 'up_blocks'}.{level}.attentions.{layer}.{rest}"


def _refusal(unknown: list[str]) -> str:
    if not unknown:
        return "it holds no LoRA layers."
    of_text_encoder = [key for key in unknown if re.match(_TEXT_ENCODER, key)]
    if of_text_encoder:
        return (
            f"it also changes the text encoder ({_first(of_text_encoder)}). Only LoRAs of the UNet alone are "
            "supported."
        )
    of_other_method = [key for key in unknown if re.search(_OTHER_METHODS, key)]
    if of_other_method:
        return (
            f"it is a DoRA, LoCon, LoHa, LoKr or OFT file ({_first(of_other_method)}). Only plain LoRA is "
            "supported."
        )
    return f"{len(unknown)} keys do not belong to a LoRA for a Stable Diffusion UNet: {_first(unknown)}."


def _first(names: Iterable[str], count: int = 3) -> str:
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
