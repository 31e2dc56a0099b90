"""The families of flow-matching transformers; to add one, write its row in `FLOW_FAMILIES`.

Their networks stay in the host, see `Network`: what is here are the names and widths that files and prompts
are checked against. A family also needs its name in `rules/categories.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..rules.categories import FAMILY_NAMES
from .conditioning import LATENT_STEP


@dataclass(frozen=True)
class FlowFamily:
    """Transformers of any size that share their layers' names, text encoders and latent space.

    Args:
        name: key in `FLOW_FAMILIES`, in `FAMILY_NAMES` and in the metadata of experts.
        text_width: width of the text embeddings that the network attends to; in FLUX.2 that of the smallest.
        pooled_width: width of the pooled prompt embedding that the network takes; 0 if it takes none.
        latent_channels: number of channels of a latent.
        attention: expression for the attention projections of all blocks.
        feed_forward: expression for their feed-forward layers.
        image_only: expression for those of `attention` that belong to the picture alone and read no prompt;
            where text and picture share all layers, it matches none.
        others: expression for further linear layers that a LoRA of another trainer may change.
        blocks: names of the network's lists of blocks, in the order in which they run.
        unread: expression for the layers of the block number `LAST` that change only what nothing reads after
            it; empty if there are none. They are not trained.
        latent_step: pixels per latent, in height and width.
        lacks: expression for layers that tell a network of another family with the same blocks.
        ratios: (expression, out, in) for layers whose widths have the ratio out / in, and in another family
            with the same names another one.
    """

    name: str
    text_width: int
    pooled_width: int
    latent_channels: int
    attention: str
    feed_forward: str
    image_only: str
    others: str
    blocks: tuple[str, ...]
    unread: str = ""
    latent_step: int = LATENT_STEP
    lacks: str = ""
    ratios: tuple[tuple[str, int, int], ...] = ()

    @property
    def label(self) -> str:
        """Name shown to people."""
        return FAMILY_NAMES[self.name]

    def targets(self, last: int) -> dict[str, str]:
        """Return what the option `targets` means, see `Network`, in a network whose last block is `last`."""
        layers = {
            "attention": self.attention,
            "attention+ff": f"{self.attention}|{self.feed_forward}",
            "self-attention": self.image_only,
        }
        if not self.unread:
            return layers
        unread = self.unread.replace("LAST", str(last))
        return {name: f"(?!(?:{unread})$)(?:{expression})" for name, expression in layers.items()}

    def has_layer(self, module: str) -> bool:
        """Return whether a path inside the network names a linear layer that a LoRA can change."""
        return bool(re.fullmatch(f"{self.attention}|{self.feed_forward}|{self.others}", module))

    def has_shape(self, module: str, d_out: int, d_in: int) -> bool:
        """Return whether a layer may have these widths in the family."""
        return all(
            d_out * narrow == d_in * wide
            for layers, wide, narrow in self.ratios
            if re.fullmatch(layers, module)
        )


_JOINT = r"joint_blocks\.\d+\."
SD3 = FlowFamily(  # Esser et al. 2024, arXiv:2403.03206; SD 3.5 Medium has a second attention, `attn2`
    name="sd3",
    text_width=4096,
    pooled_width=2048,
    latent_channels=16,
    attention=_JOINT + r"(?:context_block|x_block)\.attn2?\.(?:qkv|proj)",
    feed_forward=_JOINT + r"(?:context_block|x_block)\.mlp\.fc[12]",
    image_only=_JOINT + r"x_block\.attn2?\.(?:qkv|proj)",
    others=_JOINT + r"(?:context_block|x_block)\.adaLN_modulation\.1|context_embedder|final_layer\.linear|"
    r"final_layer\.adaLN_modulation\.1|[ty]_embedder\.mlp\.[02]",
    blocks=("joint_blocks",),
)

_GLOBAL = r"(?:double_stream_modulation_(?:img|txt)|single_stream_modulation)\.lin"
_DOUBLE, _SINGLE = r"double_blocks\.\d+\.", r"single_blocks\.\d+\."
FLUX1 = FlowFamily(  # its single blocks have attention and feed-forward in the same layers
    name="flux1",
    text_width=4096,
    pooled_width=768,
    latent_channels=16,
    attention=_DOUBLE + r"(?:img|txt)_attn\.(?:qkv|proj)|" + _SINGLE + r"linear[12]",
    feed_forward=_DOUBLE + r"(?:img|txt)_mlp\.[02]",
    image_only=_DOUBLE + r"img_attn\.(?:qkv|proj)",
    others=_DOUBLE + r"(?:img|txt)_mod\.lin|" + _SINGLE + r"modulation\.lin|(?:img|txt)_in|"
    r"(?:time|vector|guidance)_in\.(?:in|out)_layer|final_layer\.linear|final_layer\.adaLN_modulation\.1",
    blocks=("double_blocks", "single_blocks"),
    lacks=_GLOBAL,
    ratios=(
        (_DOUBLE + r"(?:img|txt)_mlp\.0", 4, 1),
        (_DOUBLE + r"(?:img|txt)_mlp\.2", 1, 4),
        (_SINGLE + "linear1", 7, 1),
        (_SINGLE + "linear2", 1, 5),
    ),
)
FLUX2 = FlowFamily(  # its blocks share what modulates them, and gate their feed-forward part
    name="flux2",
    text_width=7680,
    pooled_width=0,
    latent_channels=128,
    attention=FLUX1.attention,
    feed_forward=FLUX1.feed_forward,
    image_only=FLUX1.image_only,
    others=_GLOBAL + r"|(?:img|txt)_in|(?:time|guidance)_in\.(?:in|out)_layer|final_layer\.linear|"
    r"final_layer\.adaLN_modulation\.1",
    blocks=FLUX1.blocks,
    latent_step=16,
    ratios=(
        (_DOUBLE + r"(?:img|txt)_mlp\.0", 6, 1),
        (_DOUBLE + r"(?:img|txt)_mlp\.2", 1, 3),
        (_SINGLE + "linear1", 9, 1),
        (_SINGLE + "linear2", 1, 4),
    ),
)

_NEXT = r"(?:layers|noise_refiner|context_refiner)\.\d+\."
ZIMAGE = FlowFamily(  # its refiners read the picture or the prompt alone, its layers both in one stream
    name="zimage",
    text_width=2560,
    pooled_width=0,
    latent_channels=16,
    attention=_NEXT + r"attention\.(?:qkv|out)",
    feed_forward=_NEXT + r"feed_forward\.w[123]",
    image_only=r"noise_refiner\.\d+\.attention\.(?:qkv|out)",
    others=_NEXT + r"adaLN_modulation\.0|cap_embedder\.1|x_embedder|t_embedder\.mlp\.[02]|"
    r"final_layer\.linear|final_layer\.adaLN_modulation\.1",
    blocks=("context_refiner", "noise_refiner", "layers"),
)

_QWEN = r"transformer_blocks\.\d+\."
QWENIMAGE = FlowFamily(  # Wu et al. 2025, arXiv:2508.02324; layers of the text are named `add_` or `txt_`
    name="qwenimage",
    text_width=3584,
    pooled_width=0,
    latent_channels=16,
    attention=_QWEN + r"attn\.(?:to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)",
    feed_forward=_QWEN + r"(?:img|txt)_mlp\.net\.(?:0\.proj|2)",
    image_only=_QWEN + r"attn\.(?:to_[qkv]|to_out\.0)",
    others=_QWEN + r"(?:img|txt)_mod\.1|(?:img|txt)_in|time_text_embed\.timestep_embedder\.linear_[12]|"
    r"norm_out\.linear|proj_out",
    blocks=("transformer_blocks",),
    unread=r"transformer_blocks\.LAST\.(?:attn\.(?:add_q_proj|to_add_out)|txt_mlp\..*)",  # text after the end
)

_BLOCK = r"blocks\.\d+\."
_KREA = r"attn\.(?:w[qkvo]|gate)", r"mlp\.(?:gate|up|down)"
KREA2 = FlowFamily(  # text and picture share all layers; `txtfusion` reads twelve layers of Qwen3-VL
    name="krea2",
    text_width=12 * 2560,
    pooled_width=0,
    latent_channels=16,
    attention=_BLOCK + _KREA[0],
    feed_forward=_BLOCK + _KREA[1],
    image_only="(?!)",
    others=rf"txtfusion\.(?:layerwise|refiner)_blocks\.\d+\.(?:{'|'.join(_KREA)})|txtfusion\.projector|"
    r"txtmlp\.[13]|tmlp\.[02]|tproj\.1|first|last\.linear",
    blocks=("blocks",),
)

ANIMA = FlowFamily(  # Cosmos-Predict2 with an adapter of the text, which hosts run when they encode a prompt
    name="anima",
    text_width=1024,
    pooled_width=0,
    latent_channels=16,
    attention=_BLOCK + r"(?:self|cross)_attn\.(?:[qkv]|output)_proj",
    feed_forward=_BLOCK + r"mlp\.layer[12]",
    image_only=_BLOCK + r"self_attn\.(?:[qkv]|output)_proj",
    others=_BLOCK + r"adaln_modulation_(?:self_attn|cross_attn|mlp)\.[12]|x_embedder\.proj\.1|"
    r"t_embedder\.1\.linear_[12]|final_layer\.linear|final_layer\.adaln_modulation\.[12]|"
    r"llm_adapter\.(?:blocks\.\d+\.(?:(?:self|cross)_attn\.[qkvo]_proj|mlp\.[02])|out_proj)",
    blocks=("blocks",),
)

FLOW_FAMILIES: dict[str, FlowFamily] = {
    family.name: family for family in (SD3, FLUX1, FLUX2, ZIMAGE, QWENIMAGE, KREA2, ANIMA)
}


def flow_families_of(shapes: Mapping[str, tuple[int, int]]) -> list[FlowFamily]:
    """Return the families that a LoRA may be for; more than one if its layers do not tell them apart.

    Args:
        shapes: path of a layer -> (d_out, d_in).
    """
    named = _families_with(shapes)
    fitting = [
        family
        for family in named
        if all(family.has_shape(module, *shape) for module, shape in shapes.items())
    ]
    return fitting or named


def flow_family_of(modules: Iterable[str]) -> FlowFamily | None:
    """Return the first family that has all layers of these paths; None if there is none."""
    return next(iter(_families_with(modules)), None)


def flow_family_of_network(names: Iterable[str]) -> FlowFamily | None:
    """Return the family of a network from the names of its tensors; None if it is no flow that is known."""
    modules = [name.removesuffix(".weight") for name in names if name.endswith(".weight")]
    for family in FLOW_FAMILIES.values():
        is_other = family.lacks and any(re.fullmatch(family.lacks, module) for module in modules)
        if not is_other and any(re.fullmatch(family.attention, module) for module in modules):
            return family
    return None


def _families_with(modules: Iterable[str]) -> list[FlowFamily]:
    """Return the families that have all layers of these paths; none without a path."""
    modules = list(modules)
    return [family for family in FLOW_FAMILIES.values() if modules and all(map(family.has_layer, modules))]
