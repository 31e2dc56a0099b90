"""The families of UNets that can be trained. To add one: write its file, then add its line to `FAMILIES`.

The file holds one `Family` value. A family also needs its name and text width in `rules/categories.py`,
where code that must not wait for torch reads them. A flow-matching transformer is a row of `flow.py` instead.
"""

from collections.abc import Mapping

from torch import Tensor

from ..rules.categories import FAMILY_NAMES, TEXT_WIDTHS
from .family import Family
from .native_unet import diffusers_names, refuse_quantised
from .published import FOREIGN_CHANNELS, pruned_like
from .sdxl import SDXL
from .stable_diffusion import SD15, SD21

__all__ = ["FAMILIES", "Family", "identify"]

FAMILIES: dict[str, Family] = {family.name: family for family in (SD15, SD21, SDXL)}

# The models that `identify` can name in its errors.
_FOREIGN_PREFIXES = {  # start of a tensor name -> the only architecture that has it
    "double_blocks.": "FLUX.1 (or a relative of it), which only the nodes in ComfyUI can train",
    "joint_blocks.": "SD 3, which only the nodes in ComfyUI can train",
    "transformer_blocks.": "a diffusion transformer",
    "cap_embedder.": "Lumina (or a relative of it)",
    "controlnet_cond_embedding.": "a ControlNet",
    "input_hint_block.": "a ControlNet",
    "down_blocks.": "a UNet under diffusers' names",
}
FOREIGN_WIDTHS = {width: FAMILY_NAMES[name] for width, name in TEXT_WIDTHS.items()} | {1280: "SDXL Refiner"}
_LCM = "time_embed.cond_proj.weight"  # the guidance scale is an input of latent consistency models
_FIRST_LAYER = "input_blocks.0.0.weight"
_TEXT_KEYS = ".attn2.to_k.weight"  # (channels, text width)


def identify(state: Mapping[str, Tensor]) -> Family:
    """Return the family of a UNet by the width of its text embeddings.

    Args:
        state: tensors under the names of the original code, without a prefix; only shapes are read.

    Raises:
        ValueError: if the family cannot be trained; the error names the architecture where it is known.
    """
    trainable = ", ".join(family.label for family in FAMILIES.values())
    advice = f"this version trains {trainable}; load such a checkpoint."
    if _FIRST_LAYER not in state:
        raise ValueError(f"the model is {_foreign_architecture(state)}; {advice}")
    refuse_quantised(state)
    channels = state[_FIRST_LAYER].shape[1]
    width = next((state[name].shape[1] for name in sorted(state) if name.endswith(_TEXT_KEYS)), None)
    family = next((family for family in FAMILIES.values() if family.text_width == width), None)
    if family is None:
        if width:
            kind = FOREIGN_WIDTHS.get(width, "of an unknown family")
        else:
            kind = "a UNet without text attention"
        raise ValueError(f"the model is {kind} (text width {width or 'none'}); {advice}")
    if channels != family.latent_channels:
        kind = FOREIGN_CHANNELS.get(channels, "an unknown variant")
        raise ValueError(
            f"the model is {kind} ({channels} input channels instead of {family.latent_channels}); {advice}"
        )
    variant = "a latent consistency model (LCM)" if _LCM in state else _pruned(state)
    if variant:
        raise ValueError(f"the model is {variant}; {advice}")
    return family


def _pruned(state: Mapping[str, Tensor]) -> str:
    """Return the name of a pruned SDXL, see `pruned_like`; empty for every other UNet."""
    try:
        names = diffusers_names(state)
    except ValueError:  # tensors are missing or left over, which is said where the UNet is built
        return ""
    return pruned_like(name.removesuffix(".weight") for name in names.values())


def _foreign_architecture(state: Mapping[str, Tensor]) -> str:
    for prefix, label in _FOREIGN_PREFIXES.items():
        if any(name.startswith(prefix) for name in state):
            return label
    example = f", such as {next(iter(state))}" if state else ""
    return f"not a known UNet ({len(state)} tensors{example})"
