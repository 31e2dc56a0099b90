"""A folder of preference pairs: `pairs.jsonl`, perhaps `neutral.jsonl`, and the images they name."""

from pathlib import Path

from .collect import SourceRows
from .rows import read_rows

PAIRS_FILE, NEUTRAL_FILE = "pairs.jsonl", "neutral.jsonl"


def is_pairs_folder(path: Path) -> bool:
    """Say whether a path is a folder of this layout."""
    return (path / PAIRS_FILE).is_file()


def read_folder(folder: Path, category: str | None = None) -> SourceRows:
    """Read the rows of a folder of pairs.

    One line of `pairs.jsonl` is one object: id, category (a name or a list), unsafe_prompt, safe_prompt,
    unsafe_image, safe_image (paths inside the folder); further fields are ignored. One line of
    `neutral.jsonl` has id, prompt, image.

    Args:
        folder: the folder.
        category: not needed here, every row says its own.

    Raises:
        ValueError: if the folder or its manifest is missing; it says what was found and what to do.
    """
    root = _checked_folder(folder)
    neutral = root / NEUTRAL_FILE
    return SourceRows(
        source=root,
        name=f"{PAIRS_FILE} in {root.name}",
        root=root,
        rows=list(read_rows(root / PAIRS_FILE)),
        neutral=list(read_rows(neutral)) if neutral.is_file() else (),
    )


def _checked_folder(folder: Path) -> Path:
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise ValueError(f"the pairs folder {folder} {what}. Name a folder that holds {PAIRS_FILE}.")
    root = folder.resolve()
    if not is_pairs_folder(root):
        found = sorted(entry.name for entry in root.iterdir())
        listing = f"{len(found)} other entries, such as {found[0]}" if found else "nothing"
        raise ValueError(
            f"the pairs folder {folder.name} has no {PAIRS_FILE}; it holds {listing}. Write {PAIRS_FILE} "
            "with one object a line: id, category, unsafe_prompt, safe_prompt, unsafe_image, safe_image."
        )
    return root
