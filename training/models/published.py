"""The UNets that are published, by the names and shapes of their layers: which one a LoRA or a model is of.

Several share their names, and some their widths; what differs is how deep each transformer is, how wide each
level, and how wide the text embeddings. A pruned model keeps the widths of SDXL, but its layers are others.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..rules.categories import FAMILY_NAMES

_TRANSFORMER = re.compile(r"((?:(down|up)_blocks\.(\d+)|mid_block)\.attentions\.(\d+))\.(.+)")
_BLOCK = re.compile(r"transformer_blocks\.(\d+)\.(.+)")
_RESNET = re.compile(r"(?:(down|up)_blocks\.(\d+)|mid_block)\.resnets\.(\d+)\.(.+)")
_SAMPLER = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(downsamplers|upsamplers)\.0\.conv")
_SIZES = 6 * 256  # width of SDXL's size embeddings; the Refiner has five numbers

FOREIGN_CHANNELS = {8: "an InstructPix2Pix model", 9: "an inpainting model"}  # of the noisy latents

Depths = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class PublishedUnet:
    """The layers of a UNet.

    Args:
        label: for people.
        family: key in `FAMILY_NAMES`; empty if this pack does not support it.
        widths: channels of each level, from the finest to the coarsest.
        down: depth of each transformer per level on the way down; an empty tuple for a level without.
        middle: depth of the transformer in the middle, 0 if there is none.
        up: as `down`, on the way up, from the coarsest level.
        text_width: of the text embeddings.
        pooled_width: input of `add_embedding`, 0 if there is none.
        layers: resnets per level on the way down.
        has_linear_projections: whether a transformer begins with a linear layer instead of a convolution.
    """

    label: str
    family: str
    widths: tuple[int, ...]
    down: Depths
    middle: int
    up: Depths
    text_width: int
    pooled_width: int = 0
    layers: int = 2
    has_linear_projections: bool = True

    def has(self, module: str, d_out: int, d_in: int, *, is_convolution: bool = False) -> bool:
        """Return whether the UNet has a layer of this name and shape.

        Args:
            module: diffusers path.
            d_out: output neurons.
            d_in: inputs, times the kernel's size for a convolution.
            is_convolution: whether the layer is known to be a convolution.
        """
        if match := _TRANSFORMER.fullmatch(module):
            _, side, level, index, rest = match.groups()
            depth, width = self._depth(side, level, int(index)), self._width(side, level)
            return depth > 0 and self._has_in_transformer(rest, depth, width, (d_out, d_in), is_convolution)
        if match := _RESNET.fullmatch(module):
            side, level, index, part = match.groups()
            if int(index) >= (self.layers + (side == "up") if side else 2) or not self._width(side, level):
                return False
            width = self._width(side, level)
            inputs = {"conv2": 9 * width, "time_emb_proj": 4 * self.widths[0]}.get(part, d_in)
            return (d_out, d_in) == (width, inputs) and (part != "conv1" or d_in % 9 == 0)
        if match := _SAMPLER.fullmatch(module):
            level, width = int(match[2]), self._width(match[1].removesuffix("_blocks"), match[2])
            return level < len(self.widths) - 1 and (d_out, d_in) == (width, 9 * width)
        first = self.widths[0]
        return {
            "conv_in": d_out == first,  # its inputs tell variants apart, see `input_channels`
            "conv_out": d_in == 9 * first,
            "time_embedding.linear_1": (d_out, d_in) == (4 * first, first),
            "time_embedding.linear_2": (d_out, d_in) == (4 * first, 4 * first),
            "add_embedding.linear_1": self.pooled_width > 0
            and (d_out, d_in) == (4 * first, self.pooled_width),
            "add_embedding.linear_2": self.pooled_width > 0 and (d_out, d_in) == (4 * first, 4 * first),
        }.get(module, False)

    def depths(self) -> dict[str, int]:
        """Return the depth of every transformer by its diffusers path."""
        places = {
            f"{side}_blocks.{level}.attentions.{index}": depth
            for side, levels in (("down", self.down), ("up", self.up))
            for level, depths in enumerate(levels)
            for index, depth in enumerate(depths)
        }
        return places | ({"mid_block.attentions.0": self.middle} if self.middle else {})

    def _depth(self, side: str | None, level: str | None, index: int) -> int:
        if side is None:
            return self.middle if index == 0 else 0
        levels = self.down if side == "down" else self.up
        depths = levels[int(level or 0)] if int(level or 0) < len(levels) else ()
        return depths[index] if index < len(depths) else 0

    def _width(self, side: str | None, level: str | None) -> int:
        if side is None:
            return self.widths[-1]
        number = int(level or 0)
        if number >= len(self.widths):
            return 0
        return self.widths[number if side == "down" else len(self.widths) - 1 - number]

    def _has_in_transformer(
        self, rest: str, depth: int, width: int, shape: tuple[int, int], is_convolution: bool
    ) -> bool:
        if rest in ("proj_in", "proj_out"):
            return shape == (width, width) and not (is_convolution and self.has_linear_projections)
        match = _BLOCK.fullmatch(rest)
        if not match or int(match[1]) >= depth:
            return False
        special = {
            "attn2.to_k": (width, self.text_width),
            "attn2.to_v": (width, self.text_width),
            "ff.net.0.proj": (8 * width, width),
            "ff.net.2": (width, 4 * width),
        }
        return shape == special.get(match[2], (width, width))


_SDXL_WIDTHS = (320, 640, 1280)
_SD1 = ((320, 640, 1280, 1280), ((1, 1), (1, 1), (1, 1), ()), 1, ((), (1,) * 3, (1,) * 3, (1,) * 3))
_POOLED = 1280 + _SIZES

PUBLISHED = (
    PublishedUnet(FAMILY_NAMES["sd15"], "sd15", *_SD1, 768, has_linear_projections=False),
    PublishedUnet(FAMILY_NAMES["sd21"], "sd21", *_SD1, 1024),
    PublishedUnet(
        FAMILY_NAMES["sdxl"],
        "sdxl",
        _SDXL_WIDTHS,
        ((), (2, 2), (10, 10)),
        10,
        ((10,) * 3, (2,) * 3, ()),
        2048,
        _POOLED,
    ),
    PublishedUnet(
        "SDXL Refiner",
        "",
        (384, 768, 1536, 1536),
        ((), (4, 4), (4, 4), ()),
        4,
        ((), (4,) * 3, (4,) * 3, ()),
        1280,
        2560,
    ),
)
PRUNED = tuple(  # of SDXL: SSD-1B (arXiv:2401.02677), Segmind Vega and KOALA (arXiv:2312.04005)
    PublishedUnet(label, "", _SDXL_WIDTHS, down, middle, up, 2048, _POOLED, layers)
    for label, layers, down, middle, up in (
        ("SSD-1B", 2, ((), (2, 2), (4, 4)), 0, ((4, 4, 10), (2, 1, 1), ())),
        ("Segmind Vega", 2, ((), (1, 1), (2, 2)), 0, ((2, 2, 2), (1, 1, 1), ())),
        ("KOALA-700M", 1, ((), (2,), (5,)), 0, ((5, 5), (2, 2), ())),
        ("KOALA-1B", 1, ((), (2,), (6,)), 6, ((6, 6), (2, 2), ())),
    )
)


def pruned_like(modules: Iterable[str]) -> str:
    """Return the name of the pruned SDXL whose transformers have exactly these layers; empty if none has.

    Its layers are numbered anew: SDXL has the same names and shapes, but they mean other layers. A LoRA of
    SDXL that leaves out exactly those layers is not to be expected.

    Args:
        modules: diffusers paths of layers, all of a UNet's or all that a LoRA changes.
    """
    depths: dict[str, int] = {}
    for module in modules:
        match = _TRANSFORMER.fullmatch(module)
        block = match and _BLOCK.fullmatch(match[5])
        if block:
            depths[match[1]] = max(depths.get(match[1], 0), int(block[1]) + 1)
    return next((unet.label for unet in PRUNED if unet.depths() == depths), "")


def candidates(
    shapes: Mapping[str, tuple[int, int]], convolutions: Iterable[str] = ()
) -> list[PublishedUnet]:
    """Return the published UNets that have every layer in its shape.

    Args:
        shapes: diffusers path of a layer -> (d_out, d_in).
        convolutions: those that are known to be convolutions.
    """
    known = set(convolutions)
    pruned = pruned_like(shapes)
    return [unet for unet in PRUNED if unet.label == pruned] or [
        unet
        for unet in PUBLISHED
        if all(unet.has(name, *shape, is_convolution=name in known) for name, shape in shapes.items())
    ]
