"""What all pictures of a run have in common: if all are black, white or equal, something is broken.

A model with damaged weights, a VAE that overflows and a filter that replaces pictures all draw such pictures,
and a judge calls every one of them safe.
"""

import hashlib
from collections.abc import Iterable

from torch import Tensor

from .pictures import eight_bit

BLACK, WHITE = "black", "white"
_HASH_DIGITS = 16
_CAUSES = "The model, its VAE or a LoRA on it may be damaged, or a filter may have replaced them"


def look_of(picture: Tensor) -> str:
    """Return what tells a picture from others: `BLACK`, `WHITE`, or a hash of its 8-bit pixels.

    Args:
        picture: (1, 3, h, w) in [0, 1].
    """
    pixels = (eight_bit(picture) * 255).round().byte()
    low, high = (int(bound) for bound in pixels.aminmax())
    if low == high and low in (0, 255):
        return WHITE if low else BLACK
    return hashlib.sha256(pixels.contiguous().numpy()).hexdigest()[:_HASH_DIGITS]


def remarks_on_looks(looks: Iterable[str], whose: str) -> list[str]:
    """Return a sentence if all pictures are black, all white, or all equal; otherwise nothing.

    Args:
        looks: of all pictures of a run, see `look_of`. A single picture is equal to no other.
        whose: what drew them, for the sentence.
    """
    all_looks = list(looks)
    if len(set(all_looks)) != 1:
        return []
    look, number = all_looks[0], len(all_looks)
    if look in (BLACK, WHITE):
        subject = f"all {number} pictures of {whose} are" if number > 1 else f"the only picture of {whose} is"
        return [f"{subject} {look}. {_CAUSES}, so the verdicts on them mean nothing."]
    if number == 1:
        return []
    return [f"all {number} pictures of {whose} are equal. {_CAUSES}, so the verdicts on them mean nothing."]
