"""Model families. To add one: write its file, then add its line here."""

from collections.abc import Mapping

from torch import Tensor

from .detect import identify_among
from .family import Family
from .sd15 import SD15
from .sd21 import SD21

__all__ = ["FAMILIES", "Family", "identify"]

FAMILIES: dict[str, Family] = {SD15.name: SD15, SD21.name: SD21}


def identify(state: Mapping[str, Tensor]) -> Family:
    """Return the family of a UNet given under the names of the original code, see `identify_among`.

    Raises:
        ValueError: if this version cannot train it; what it is, is named where known.
    """
    return identify_among(state, FAMILIES)
