"""What a LoRA file holds besides plain LoRA layers of a UNet: left out by kind, or the reason to refuse it.

A part of another network, a norm or a bias does not change what the LoRA layers mean, so they can be used
without it, as long as people are told. A layer trained by another method than LoRA cannot be read as one, and
what remains without it is not what was trained.
"""

import re
from collections.abc import Iterable, Mapping

from ..rules.categories import FAMILY_NAMES

TEXT_ENCODER, FULL_WEIGHTS = "tensors of a text encoder", "full weights of layers"
EMBEDDINGS, NORMS, BIASES = "embeddings", "norms", "biases"
LEFT_OUT_KINDS = (TEXT_ENCODER, FULL_WEIGHTS, EMBEDDINGS, NORMS, BIASES)
_ESSENTIAL = (TEXT_ENCODER, FULL_WEIGHTS)  # an expert without them would be half an expert
LEFT_OUT = "alignguard.left_out"  # metadata: the sentence about it

_TEXT_ENCODER = re.compile(
    r"(base_model\.model\.)?(lora_te\d?_|lora_prior_te|lycoris_te|lora_unet_clip_[lgh]_|text_encoders?(_\d)?\.|"
    r"text_model\.|clip_[lgh]\.|cond_stage_model\.|conditioner\.)"
)
_EMBEDDING = re.compile(r"bundle_emb\..+|emb_params|clip_[lgh]|(.*\.)?string_to_param.*")
_OTHER_METHODS = {  # ending of a key -> the method that writes it
    r"dora_scale|lora_magnitude_vector(\..+)?": "DoRA",
    r"hada_\w+": "LoHa",
    r"lokr_\w+": "LoKr",
    r"[ab][12]\.weight": "GLoRA",
    r"(oft|boft)_\w+(\..+)?": "OFT",
    r"on_input|ia3_l(\..+)?": "IA3",
    r"lora_E(\..+)?|ranknum(\..+)?": "AdaLoRA",
    r"vera_lambda_[bd](\..+)?": "VeRA",
    r"scalar|rescale|reshape_weight": "LoRA with further factors",
}
_OTHER_METHOD = {re.compile(rf".*\.({ending})"): name for ending, name in _OTHER_METHODS.items()}
_FOREIGN = {  # what only the names of that architecture contain -> the architecture
    r"double_blocks|single_blocks|single_transformer_blocks": "Flux (or a relative of it)",
    r"joint_blocks": "SD 3",
    r"lora_prior_unet_": "Stable Cascade",
    r"lllite_|control_model|controlnet": "a ControlNet",
    r"motion_modules|temporal_transformer": "AnimateDiff",
    r"lora_transformer_|transformer\.|(^|\.)(blocks|layers|transformer_blocks)\.\d|unet_(blocks|layers)_\d": (
        "a diffusion transformer"
    ),
}


def part_of_file(key: str) -> str | None:
    """Return the kind of a key that belongs to no network of diffusion: a text encoder or an embedding."""
    if _TEXT_ENCODER.match(key):
        return TEXT_ENCODER
    return EMBEDDINGS if _EMBEDDING.fullmatch(key) else None


def other_method(key: str) -> str | None:
    """Return the method besides LoRA that writes such a key, or None."""
    return next((name for ending, name in _OTHER_METHOD.items() if ending.fullmatch(key)), None)


def sentence(counts: Mapping[str, int]) -> str:
    """Return for people how many tensors of each kind were left out."""
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def check_whole(name: str, counts: Mapping[str, int]) -> None:
    """Raise if too much was left out of a file for an expert; a LoRA beside an expert may be used so.

    Args:
        name: of the expert.
        counts: number of tensors left out, by kind.

    Raises:
        ValueError: naming what is missing, and what such a file can be used for.
    """
    missing = {kind: count for kind, count in counts.items() if kind in _ESSENTIAL}
    if missing:
        raise ValueError(
            f"{name} also changes what an expert cannot hold ({sentence(missing)}), so half of it would be "
            "missing. Use it as a LoRA beside an expert, of which only the UNet layers count, or load it "
            "with the stock LoRA loader. As an expert, use a LoRA of the UNet alone."
        )


def refusal(unknown: Mapping[str, str | None], counts: Mapping[str, int]) -> str:
    """Return why a file cannot be read.

    Args:
        unknown: keys that are neither of a LoRA nor left out -> their method, None if it is not known.
        counts: number of tensors that would be left out, by kind.
    """
    methods = {method: None for method in unknown.values() if method}
    if methods:
        keys = [key for key, method in unknown.items() if method]
        return (
            f"it is a {' and '.join(methods)} file ({first(keys)}). Only plain LoRA, of linear layers and "
            "convolutions, is supported."
        )
    if unknown:
        kind = next((name for part, name in _FOREIGN.items() if re.search(part, next(iter(unknown)))), None)
        subject = f"it is for {kind}" if kind else "it does not fit the UNet of Stable Diffusion"
        return (
            f"{subject}: {len(unknown)} keys name no layer that is known, such as {first(unknown)}. Use a "
            f"LoRA of {', '.join(FAMILY_NAMES.values())}."
        )
    if counts:
        return f"it holds no LoRA layers of the UNet, only {sentence(counts)}. Use a LoRA of the UNet."
    return "it holds no LoRA layers."


def first(names: Iterable[str], count: int = 3) -> str:
    """Return the first names, and how many there are more."""
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
