"""Which base model a LoRA is for: decided by the names and shapes of its layers, then by its metadata."""

import re
from collections.abc import Iterable, Mapping

from ..models.flow import FLOW_FAMILIES, flow_families_of
from ..models.published import FOREIGN_CHANNELS, PUBLISHED, PublishedUnet, candidates
from ..rules.categories import FAMILY_NAMES

_REFINER = "SDXL Refiner"
# What tools write for the same base models, without case and punctuation -> family, or the name of another.
_HINTS = {
    "refiner": _REFINER,
    "ssd1b": "SSD-1B",
    "sdxl|stablediffusionxl": "sdxl",
    "(sd|stablediffusion)v?1": "sd15",
    "(sd|stablediffusion)v?2": "sd21",
    "(sd|stablediffusion)v?3": "sd3",
    "flux2": "flux2",
    "flux3": "a later FLUX",
    "flux": "flux1",
    "zimage": "zimage",
    "qwenimage": "qwenimage",
    "krea2": "krea2",
    r"anima($|lora|preview|base|v?\d)": "anima",  # and not Animagine, an SDXL
    "lumina": "Lumina",
}
_HINTED_BY = ("alignguard.family", "modelspec.architecture", "ss_base_model_version")
_TEXT_LAYER = r"attn2\.to_[kv]$"
_LATENT_CHANNELS, _KERNEL = 4, 9


def family_of_lora(
    shapes: Mapping[str, tuple[int, int]],
    metadata: Mapping[str, str],
    *,
    convolutions: Iterable[str] = (),
    assumed: str = "",
) -> str:
    """Return the family of the base model of a LoRA.

    Args:
        shapes: path of a layer -> (d_out, d_in).
        metadata: of the file; it decides between families that have all these layers.
        convolutions: layers that are known to be convolutions.
        assumed: family to take if neither layers nor metadata decide; empty to refuse then.

    Raises:
        ValueError: naming the model, if it is not supported; or if layers and metadata contradict each other,
            or nothing decides.
    """
    hint = _hint(metadata)
    if flows := [flow.name for flow in flow_families_of(shapes)]:
        if hint and hint not in flows:
            raise ValueError(_contradiction(hint, f"layers are those of {' or '.join(map(_label, flows))}"))
        return hint or (assumed if assumed in flows else flows[0])
    if hint in FLOW_FAMILIES:
        raise ValueError(_contradiction(hint, "layers are those of a UNet"))
    if assumed in FLOW_FAMILIES:
        raise ValueError(
            f"it was to be used with {_label(assumed)}, but its layers are those of a UNet. Use a LoRA of "
            f"{_label(assumed)}."
        )
    _check_inputs(shapes.get("conv_in"))
    width = next((shapes[module][1] for module in shapes if re.search(_TEXT_LAYER, module)), None)
    names, reason = _by_layers(candidates(shapes, convolutions), width)
    if hint in names or (len(names) == 1 and names[0] not in FAMILY_NAMES):
        return _supported(names[0] if len(names) == 1 else hint)
    if hint and names:
        raise ValueError(_contradiction(hint, f"{reason} {' or '.join(map(_label, names))}"))
    if hint:
        return _supported(hint)
    if len(names) == 1:
        return _supported(names[0])
    if assumed and (not names or assumed in names):
        return assumed
    alike = f"fit {' and '.join(map(_label, names))} alike" if names else f"fit none (text width {width})"
    raise ValueError(
        f"it does not say which base model it is for, and its layers {alike}. State the base model where you "
        f"load it, or use a LoRA of {', '.join(FAMILY_NAMES.values())}."
    )


def _contradiction(hint: str, found_layers: str) -> str:
    return f"its metadata says {_label(hint)}, but its {found_layers}. Download or train it again."


def _by_layers(unets: list[PublishedUnet], width: int | None) -> tuple[list[str], str]:
    """Return the families or names that have the layers, and what of the layers says so."""
    by_width = f"text width {width} is that of" if width else "layers are those of"
    if unets:
        return [unet.family or unet.label for unet in unets], by_width
    of_width = [unet.family or unet.label for unet in PUBLISHED if unet.text_width == width]
    return of_width, by_width  # a model of another size, such as a small one


def _check_inputs(conv_in: tuple[int, int] | None) -> None:
    channels = conv_in[1] // _KERNEL if conv_in else _LATENT_CHANNELS
    if channels != _LATENT_CHANNELS:
        kind = FOREIGN_CHANNELS.get(channels, "an unknown variant")
        raise ValueError(
            f"it is for {kind} ({channels} input channels instead of {_LATENT_CHANNELS}), which is not "
            "supported. Use a LoRA of the plain model."
        )


def _hint(metadata: Mapping[str, str]) -> str:
    texts = [metadata.get(key, "") for key in _HINTED_BY]
    if texts[0] in FAMILY_NAMES:
        return texts[0]
    plain = [re.sub("[^a-z0-9]", "", text.casefold()) for text in texts]
    return next((name for text in plain for hint, name in _HINTS.items() if re.search(hint, text)), "")


def _supported(name: str) -> str:
    if name not in FAMILY_NAMES:
        raise ValueError(
            f"it is for {name}, which is not supported. Use a LoRA of {', '.join(FAMILY_NAMES.values())}."
        )
    return name


def _label(name: str) -> str:
    return FAMILY_NAMES.get(name, name)
