"""The judge of the large world: which concept a picture shows, and on which ground."""

from ..judge import NO_ICON, Classifier
from .concepts import ALL_CONCEPTS
from .scenes import GROUNDS

NAMES = (*(concept.name for concept in ALL_CONCEPTS), NO_ICON)
WIDTHS = (24, 48, 96, 128, 192)


def new_judge() -> Classifier:
    """Return an untrained judge."""
    return Classifier((NAMES, tuple(GROUNDS)), WIDTHS)
