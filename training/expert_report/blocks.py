"""Layers brought together by the block of the UNet they stand in, and tables with a column per block."""

import re
from collections.abc import Mapping, Sequence

_ORDER = ("time", "add", "conv_in", "down", "mid", "up")


def block_of(module: str) -> str:
    """Return the block of a layer by its diffusers path, such as `down_blocks.0`."""
    return re.match(r"(?:down_blocks|up_blocks)\.\d+|[^.]*", module).group()


def short_name(block: str) -> str:
    """Return a block's name for the head of a column: `down.0`."""
    return block.replace("_blocks", "").replace("_block", "")


def depth(module: str) -> tuple:
    """Return what sorts layers and blocks in the order they run in; numbers count as numbers."""
    place = next((i for i, start in enumerate(_ORDER) if module.startswith(start)), len(_ORDER))
    return place, [(int(part), "") if part.isdigit() else (-1, part) for part in module.split(".")]


def table(title: str, blocks: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    """Return lines of a table: a title, the blocks as heads of columns, and named rows of cells."""
    width = max(map(len, rows), default=0)
    heads = "".join(f"{short_name(block):>9}" for block in blocks)
    lines = [f"  {name:<{width}}" + "".join(f"{cell:>9}" for cell in cells) for name, cells in rows.items()]
    return [f"{title}:", f"  {'':<{width}}{heads}", *lines]
