"""Model families. To add one: write its file, then add its line here."""

from collections.abc import Mapping

from torch import Tensor

from .detect import identify_among
from .family import Family
from .sd15 import SD15
from .sd21 import SD21
from .sdxl import SDXL

__all__ = ["FAMILIES", "Family", "identify"]

FAMILIES: dict[str, Family] = {family.name: family for family in (SD15, SD21, SDXL)}


def identify(state: Mapping[str, Tensor]) -> Family:
    """Return the family of a UNet given under the names of the original code, see `identify_among`.

    Raises:
        ValueError: if this version cannot train it; what it is, is named where known.
    """
    return identify_among(state, FAMILIES)
