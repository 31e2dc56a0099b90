"""Tell which family a UNet belongs to, and name the ones this version cannot train."""

from collections.abc import Mapping

from torch import Tensor

from ..rules.categories import FAMILY_NAMES, TEXT_WIDTHS
from .family import Family
from .sd15 import SD15
from .sd21 import SD21
from .sdxl import SDXL

# A name that only this architecture has, or its beginning -> the architecture's name for people.
_FOREIGN = {
    "double_blocks.": "Flux (or a relative of it)",
    "joint_blocks.": "SD 3",
    "transformer_blocks.": "a diffusion transformer",
    "cap_embedder.": "Lumina (or a relative of it)",
    "controlnet_cond_embedding.": "a ControlNet",
    "input_hint_block.": "a ControlNet",
    "down_blocks.": "a UNet under diffusers' names",
}
_KINDS = {width: FAMILY_NAMES[name] for width, name in TEXT_WIDTHS.items()} | {1280: "SDXL Refiner"}
_INPUTS = {8: "an InstructPix2Pix model", 9: "an inpainting model"}
_WIDTH_FROM = ".attn2.to_k.weight"


def identify_among(state: Mapping[str, Tensor], families: Mapping[str, Family]) -> Family:
    """Return the family of a UNet.

    Args:
        state: tensors under the names of the original code, without a prefix.
        families: the families to choose from, see `FAMILIES`.

    Raises:
        ValueError: if it is none of them; what it is, is named where known.
    """
    known = ", ".join(family.label for family in families.values())
    advice = f"this version trains {known}; load such a checkpoint."
    if "input_blocks.0.0.weight" not in state:
        raise ValueError(f"the model is {_foreign(state)}; {advice}")
    channels = state["input_blocks.0.0.weight"].shape[1]
    width = next((state[name].shape[1] for name in sorted(state) if name.endswith(_WIDTH_FROM)), None)
    family = next((each for each in families.values() if each.text_width == width), None)
    if family is None:
        kind = _KINDS.get(width, "of an unknown family") if width else "a UNet without text attention"
        raise ValueError(f"the model is {kind} (text width {width or 'none'}); {advice}")
    if channels != family.latent_channels:
        kind = _INPUTS.get(channels, "an unknown variant")
        raise ValueError(
            f"the model is {kind} ({channels} input channels instead of {family.latent_channels}); {advice}"
        )
    return family


def _foreign(state: Mapping[str, Tensor]) -> str:
    for start, label in _FOREIGN.items():
        if any(name.startswith(start) for name in state):
            return label
    example = f", such as {next(iter(state))}" if state else ""
    return f"no UNet known here ({len(state)} tensors{example})"


__all__ = ["FAMILIES", "Family", "identify"]

FAMILIES: dict[str, Family] = {family.name: family for family in (SD15, SD21, SDXL)}


def identify(state: Mapping[str, Tensor]) -> Family:
    """Return the family of a UNet given under the names of the original code, see `identify_among`.

    Raises:
        ValueError: if this version cannot train it; what it is, is named where known.
    """
    return identify_among(state, FAMILIES)
