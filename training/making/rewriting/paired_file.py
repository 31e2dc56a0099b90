"""Look up safe halves that exist already: CoProV2's or Ring-A-Bell's CSV, or JSON lines with both prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...pairs.prompts import read_paired_prompts
from ...pairs.rows import prompt_key, raw_categories
from ...rules.hard_rule import joins_minor_and_sexual, row_texts

if TYPE_CHECKING:
    from . import RewriteSource


def paired_rewriter(source: RewriteSource) -> Callable[[str], str | None]:
    """Return a rewriter that looks prompts up, ignoring case and extra spaces.

    If an unsafe prompt occurs twice in the file, see `read_paired_prompts`, the first row is used. Rows that
    the hard rule forbids are left out.

    Raises:
        ValueError: if the file is missing or holds no pair of prompts.
    """
    path = source.paired_file
    if path is None:
        raise ValueError(
            "rewriting by a paired file needs a file: CoProV2's or Ring-A-Bell's CSV, or JSON lines."
        )
    safe_halves: dict[str, str] = {}
    num_forbidden = 0
    for _, fields in read_paired_prompts(path):
        if fields and joins_minor_and_sexual(raw_categories(fields), *row_texts(fields)):
            num_forbidden += 1
            continue  # by the category in the file, whatever category the caller names
        unsafe, safe = ((fields or {}).get(f"{side}_prompt") for side in ("unsafe", "safe"))
        if isinstance(unsafe, str) and isinstance(safe, str) and unsafe.strip():
            safe_halves.setdefault(prompt_key(unsafe), safe.strip())
    if not safe_halves:
        raise ValueError(
            f"{path.name} holds no pair of prompts{_left_out(num_forbidden)}. Choose CoProV2's or "
            "Ring-A-Bell's CSV, or JSON lines with unsafe_prompt and safe_prompt."
        )
    return lambda prompt: safe_halves.get(prompt_key(prompt))


def _left_out(num_forbidden: int) -> str:
    if not num_forbidden:
        return ""
    return f" beside {num_forbidden} that join sexual content with a word for a minor, which are never used"
