"""The names of a network's layers: diffusers paths, the original code's, and either in Kohya's underscores.

A diffusers path follows the grammar `_MODULE`. The original code numbers all blocks in one sequence; the
tables of `models.native_unet` translate its names. SD 1.5, SD 2.1, SDXL and its Refiner all have two layers
per level, so that one table of four levels serves them all. The layers of a flow's transformer have the names
of its original code everywhere, see `FlowFamily`.
"""

import re

from ..models.flow import flow_family_of
from ..models.native_unet import Layout, module_names

KOHYA_PREFIX, HOST_PREFIX = "lora_unet_", "diffusion_model."
_UNDERSCORED = (KOHYA_PREFIX, "lycoris_")  # of LyCORIS files by SimpleTuner
_DOTTED = (  # prefixes of names with dots; the longest of those that a name can begin with comes first
    *("base_model.model.unet.", "base_model.model.", "unet.base_model.model.", "unet."),
    *("model.diffusion_model.", "diffusion_model.", ""),
)

_MODULE = (
    r"(?:(?:down_blocks|up_blocks)\.\d+|mid_block)\."
    r"(?:attentions\.\d+\.(?:proj_in|proj_out|transformer_blocks\.\d+\."
    r"(?:attn[12]\.(?:to_q|to_k|to_v|to_out\.0)|ff\.net\.(?:0\.proj|2)))"
    r"|resnets\.\d+\.(?:time_emb_proj|conv1|conv2|conv_shortcut)"
    r"|(?:downsamplers|upsamplers)\.0\.conv)"
    r"|(?:time_embedding|add_embedding)\.linear_[12]|conv_in|conv_out"
)
_NORM = (
    r"(?:(?:down_blocks|up_blocks)\.\d+|mid_block)\.(?:attentions\.\d+\.(?:norm|transformer_blocks\.\d+\.norm[123])"
    r"|resnets\.\d+\.norm[12])|conv_norm_out"
)
# The words between the dots. Kohya joins them by underscores, which the words also contain, so only this list
# tells them apart; a longer word must come before any word that it begins with.
_WORDS = (
    r"down_blocks|up_blocks|mid_block|input_blocks|middle_block|output_blocks|attentions|transformer_blocks|"
    r"attn[12]|to_q|to_k|to_v|to_out|ff|net|proj_in|proj_out|proj|resnets|time_emb_proj|conv_shortcut|conv_in|"
    r"conv_out|conv_norm_out|conv[12]|conv|downsamplers|upsamplers|time_embedding|time_embed|add_embedding|linear_[12]|"
    r"in_layers|out_layers|emb_layers|skip_connection|label_emb|out|op|norm[123]|norm|"
    r"joint_blocks|context_block|x_block|attn|qkv|mlp|fc[12]|adaLN_modulation|"  # SD 3
    r"double_blocks|single_blocks|(?:img|txt)_(?:attn|mlp|mod)|linear[12]|modulation|lin|"  # FLUX.1
    r"layers|noise_refiner|context_refiner|attention|feed_forward|w[123]|"  # Z-Image
    r"add_[qkv]_proj|to_add_out|"  # Qwen-Image
    r"txtfusion|layerwise_blocks|refiner_blocks|blocks|w[qkvo]|gate|up|down|"  # Krea 2
    r"self_attn|cross_attn|(?:[qkvo]|output)_proj|layer[12]|llm_adapter|"  # Anima
    r"adaln_modulation_(?:self_attn|cross_attn|mlp)|\d+"
)
_KOHYA_NAME = rf"(?:{_WORDS})(?:_(?:{_WORDS}))*"
_KOHYA_WORD = rf"({_WORDS})(?:_|$)"


def _native_modules() -> dict[str, str]:
    """Return the diffusers name of each module of the original code, a transformer as one entry."""
    # an upsampler follows the transformer of its entry, if there is one
    tables = (module_names(Layout((0,) * 4, (attention,) * 4, 2, 0, 0)) for attention in (False, True))
    return {native: name for table in tables for name, native in table.items()}


_NATIVE = _native_modules()


def is_layer(module: str) -> bool:
    """Return whether a path names a layer of a UNet or of a flow's transformer that a LoRA can change."""
    return bool(re.fullmatch(_MODULE, module)) or is_flow_layer(module)


def is_flow_layer(module: str) -> bool:
    """Return whether a path names a layer of a flow's transformer that a LoRA can change."""
    return flow_family_of([module]) is not None


def kohya_name(module: str) -> str:
    """Return a UNet layer's name in Kohya files: `lora_unet_` and the path with underscores.

    Raises:
        ValueError: if the path is not the diffusers path of a UNet layer.
    """
    if not re.fullmatch(_MODULE, module):
        raise ValueError(f"{module!r} is not the diffusers path of a UNet layer.")
    return KOHYA_PREFIX + module.replace(".", "_")


def name_in_files(module: str) -> str:
    """Return a layer's name in the files that are written, which the stock loader reads.

    Kohya's of a UNet, and of a flow its name in the host: `diffusion_model.` and the path.

    Raises:
        ValueError: if the path names no layer that a LoRA can change.
    """
    return f"{HOST_PREFIX}{module}" if is_flow_layer(module) else kohya_name(module)


def module_of_kohya(name: str) -> str:
    """Return the diffusers path of a layer from its Kohya name, with diffusers' or the original words.

    Raises:
        ValueError: if the name is not the Kohya name of a UNet layer.
    """
    path = diffusers_path(name) if name.startswith(_UNDERSCORED) else ""
    if not is_layer(path):
        raise ValueError(f"{name!r} is not the Kohya name of a UNet layer.")
    return path


def is_norm(module: str) -> bool:
    """Return whether a diffusers path names a norm of a UNet."""
    return bool(re.fullmatch(_NORM, module))


def diffusers_path(name: str) -> str:
    """Return the diffusers path of a module from its name in a LoRA file, in any dialect.

    Args:
        name: with underscores behind `lora_unet_` or `lycoris_`, or with dots; in the words of diffusers or
            of the original code; with or without a prefix. For any other name, what is returned is neither
            a layer nor a norm.
    """
    prefix = next((prefix for prefix in _UNDERSCORED if name.startswith(prefix)), None)
    if prefix:
        words = name.removeprefix(prefix)
        path = ".".join(re.findall(_KOHYA_WORD, words)) if re.fullmatch(_KOHYA_NAME, words) else ""
        return _from_native(path)
    path = name.removeprefix(next(prefix for prefix in _DOTTED if name.startswith(prefix)))
    if ".processor." in path:  # diffusers of 2023
        path = re.sub(r"\.to_out$", ".to_out.0", path.replace(".processor.", "."))
    return _from_native(path)


def _from_native(path: str) -> str:
    native, rest = path, ""
    while native:
        if native in _NATIVE:
            return _NATIVE[native] + rest
        native, _, part = native.rpartition(".")
        rest = f".{part}{rest}"
    return path
