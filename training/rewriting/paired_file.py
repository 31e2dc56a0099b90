"""Safe halves that somebody wrote before: CoProV2's CSV, or JSON lines with both prompts."""

from collections.abc import Callable

from ..data.coprov2 import is_coprov2, read_coprov2
from ..data.folder import PAIRS_FILE
from ..data.manifest import prompt_key, read_rows
from .source import RewriteSource


def paired_rewriter(source: RewriteSource) -> Callable[[str], str | None]:
    """Return a rewriter that looks prompts up; case and spaces make no difference.

    The file is CoProV2's CSV (no image is needed), JSON lines with unsafe_prompt and safe_prompt, or a
    folder that holds such a `pairs.jsonl`. Of an unsafe prompt that stands there twice the first counts.

    Raises:
        ValueError: if there is no such file, or it holds no pair of prompts.
    """
    path = source.paired_file
    if path is None:
        raise ValueError("rewriting by a paired file needs one: CoProV2's CSV, or lines of JSON.")
    file = path / PAIRS_FILE if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{file.name} does not exist in {file.parent}. Name a file of paired prompts.")
    rows = read_coprov2(file, images=file.parent).rows if is_coprov2(file) else read_rows(file)
    known: dict[str, str] = {}
    for _, fields in rows:
        unsafe, safe = ((fields or {}).get(f"{side}_prompt") for side in ("unsafe", "safe"))
        if isinstance(unsafe, str) and isinstance(safe, str) and unsafe.strip():
            known.setdefault(prompt_key(unsafe), safe.strip())
    if not known:
        raise ValueError(
            f"{file.name} holds no pair of prompts. Name CoProV2's CSV, or JSON lines with unsafe_prompt and "
            "safe_prompt."
        )
    return lambda prompt: known.get(prompt_key(prompt))
