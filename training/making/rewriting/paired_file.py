"""Look up safe halves that exist already: CoProV2's or Ring-A-Bell's CSV, or JSON lines with both prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...pairs.prompts import read_paired_prompts
from ...pairs.rows import prompt_key, raw_categories
from ...rules.hard_rule import joins_minor_and_sexual, row_texts

if TYPE_CHECKING:
    from . import RewriteSource


def paired_rewriter(source: RewriteSource) -> Callable[[str], str | None]:
    """Return a rewriter that looks prompts up, ignoring case and extra spaces.

    If an unsafe prompt occurs twice in the file, see `read_paired_prompts`, the first row is used.

    Raises:
        ValueError: if the file is missing, or as `read_halves`.
    """
    if source.paired_file is None:
        raise ValueError(
            "rewriting by a paired file needs a file: CoProV2's or Ring-A-Bell's CSV, or JSON lines."
        )
    safe_halves = {prompt_key(unsafe): safe for unsafe, safe in read_halves(source.paired_file)}
    return lambda prompt: safe_halves.get(prompt_key(prompt))


def read_halves(path: Path) -> list[tuple[str, str]]:
    """Return the unsafe and safe prompts of a file, each unsafe one once.

    Rows that the hard rule forbids are left out, by the category in the file, whatever category the caller
    names.

    Raises:
        ValueError: if the file holds no pair of prompts.
    """
    halves: dict[str, tuple[str, str]] = {}
    num_forbidden = 0
    for _, fields in read_paired_prompts(path):
        if fields and joins_minor_and_sexual(raw_categories(fields), *row_texts(fields)):
            num_forbidden += 1
            continue
        unsafe, safe = ((fields or {}).get(f"{side}_prompt") for side in ("unsafe", "safe"))
        if isinstance(unsafe, str) and isinstance(safe, str) and unsafe.strip():
            halves.setdefault(prompt_key(unsafe), (unsafe.strip(), safe.strip()))
    if not halves:
        raise ValueError(
            f"{path.name} holds no pair of prompts{_left_out(num_forbidden)}. Choose CoProV2's or "
            "Ring-A-Bell's CSV, or JSON lines with unsafe_prompt and safe_prompt."
        )
    return list(halves.values())


def _left_out(num_forbidden: int) -> str:
    if not num_forbidden:
        return ""
    return f" beside {num_forbidden} that join sexual content with a word for a minor, which are never used"
