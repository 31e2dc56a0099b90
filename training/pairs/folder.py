"""Source: a folder with `pairs.jsonl`, perhaps `neutral.jsonl`, and the images that they name."""

from pathlib import Path

from ..system.paths import is_inside
from .collect import SourceRows
from .rows import read_rows

PAIRS_FILE, NEUTRAL_FILE = "pairs.jsonl", "neutral.jsonl"


def is_pairs_folder(path: Path) -> bool:
    """Tell whether a path is a folder of this layout."""
    return (path / PAIRS_FILE).is_file()


def read_folder(folder: Path, category: str | None = None) -> SourceRows:
    """Read the rows of a folder of pairs.

    Each line of `pairs.jsonl` is one object: id, category (a name or a list), unsafe_prompt, safe_prompt,
    unsafe_image, safe_image (paths inside the folder); other fields are ignored. Each line of
    `neutral.jsonl` has id, prompt, image.

    Args:
        folder: the folder.
        category: ignored, because every row states its own.

    Raises:
        ValueError: if the folder or its manifest is missing, or the manifest is a link that leads out.
    """
    root = _checked_folder(folder)
    neutral = root / NEUTRAL_FILE
    for manifest in (root / PAIRS_FILE, neutral):
        if not is_inside(manifest, root):
            raise ValueError(
                f"{manifest.name} is a link that leads out of {root.name}. Copy the file there, or name the "
                "folder that holds it."
            )
    return SourceRows(
        source=root,
        name=f"{PAIRS_FILE} in {root.name}",
        root=root,
        rows=list(read_rows(root / PAIRS_FILE)),
        neutral=list(read_rows(neutral)) if neutral.is_file() else (),
    )


def _checked_folder(folder: Path) -> Path:
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "does not exist"
        raise ValueError(f"the pairs folder {folder} {problem}. Name a folder that holds {PAIRS_FILE}.")
    root = folder.resolve()
    if not is_pairs_folder(root):
        names = sorted(entry.name for entry in root.iterdir())
        listing = f"{len(names)} other entries, such as {names[0]}" if names else "nothing"
        raise ValueError(
            f"the pairs folder {folder.name} has no {PAIRS_FILE}; it holds {listing}. Write {PAIRS_FILE} "
            "with one object per line: id, category, unsafe_prompt, safe_prompt, unsafe_image, safe_image."
        )
    return root
