"""Safe halves that somebody wrote before: CoProV2's or Ring-A-Bell's CSV, or JSON lines with both prompts."""

from collections.abc import Callable

from ...pairs.prompts import read_paired_prompts
from ...pairs.rows import prompt_key, raw_categories
from ...rules.hard_rule import joins_minor_and_sexual, row_texts
from .term_table import RewriteSource


def paired_rewriter(source: RewriteSource) -> Callable[[str], str | None]:
    """Return a rewriter that looks prompts up; case and spaces make no difference.

    Of an unsafe prompt that stands twice in the file, see `read_paired_prompts`, the first counts. Rows that
    the hard rule forbids are not known.

    Raises:
        ValueError: if there is no such file, or it holds no pair of prompts.
    """
    path = source.paired_file
    if path is None:
        raise ValueError(
            "rewriting by a paired file needs one: CoProV2's or Ring-A-Bell's CSV, or JSON lines."
        )
    known: dict[str, str] = {}
    for _, fields in read_paired_prompts(path):
        if fields and joins_minor_and_sexual(raw_categories(fields), *row_texts(fields)):
            continue  # by the file's own category, whatever the caller's is
        unsafe, safe = ((fields or {}).get(f"{side}_prompt") for side in ("unsafe", "safe"))
        if isinstance(unsafe, str) and isinstance(safe, str) and unsafe.strip():
            known.setdefault(prompt_key(unsafe), safe.strip())
    if not known:
        raise ValueError(
            f"{path.name} holds no pair of prompts. Name CoProV2's or Ring-A-Bell's CSV, or JSON lines "
            "with unsafe_prompt and safe_prompt."
        )
    return lambda prompt: known.get(prompt_key(prompt))
