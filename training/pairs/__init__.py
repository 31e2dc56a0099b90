"""Preference pairs. To add a source: write its file, then add its line to `PAIR_SOURCES`.

A source recognises paths of its layout and reads their rows; `collect_pairs` checks rows and images, makes
pairs of them, and reports everything that was dropped.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .collect import SourceRows, collect_pairs
from .coprov2 import is_coprov2, read_coprov2
from .folder import is_pairs_folder, read_folder
from .image_folder import is_image_folder, read_image_folder
from .pair import NeutralSample, SafetyPairs
from .report import PairsReport

__all__ = [
    "PAIR_SOURCES",
    "NeutralSample",
    "PairSource",
    "PairsReport",
    "SafetyPairs",
    "SourceRows",
    "collect_pairs",
    "is_pair_source",
    "load_pairs",
]


class PairSource(NamedTuple):
    """A layout of pairs on disk.

    Args:
        recognises: tells, without reading much, whether a path has this layout.
        read: takes the path and the category asked for, returns the rows.
    """

    recognises: Callable[[Path], bool]
    read: Callable[[Path, str | None], SourceRows]


PAIR_SOURCES = {  # tried in this order
    "folder": PairSource(is_pairs_folder, read_folder),
    "coprov2": PairSource(is_coprov2, read_coprov2),
    "image folder": PairSource(is_image_folder, read_image_folder),
}


def is_pair_source(path: Path) -> bool:
    """Tell whether a path has a layout that `load_pairs` reads."""
    return any(source.recognises(path) for source in PAIR_SOURCES.values())


def load_pairs(
    path: Path,
    *,
    category: str | None = None,
    max_pairs: int = 0,
    decode: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> SafetyPairs:
    """Read and check the pairs of a folder or file of any known layout.

    Args:
        path: in the layout of one of `PAIR_SOURCES`.
        category: keep the pairs that carry it, in any spelling; rows of a source without categories are
            assigned this one. None keeps all.
        max_pairs: keep the first so many; 0 keeps all.
        decode: also decode every image, some milliseconds each.
        on_progress: called with (done, total) after each row; whatever it raises stops the reading.

    Raises:
        ValueError: if the path has no known layout, or no pair can be used.
    """
    matching = (source for source in PAIR_SOURCES.values() if source.recognises(path))
    source = next(matching, PAIR_SOURCES["folder"])  # its error explains what a folder of pairs needs
    return collect_pairs(
        source.read(path, category),
        category=category,
        max_pairs=max_pairs,
        decode=decode,
        on_progress=on_progress,
    )
