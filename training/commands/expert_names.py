"""Experts as they are typed on the command line, with strengths and LoRAs beside them, and short names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..config import MAX_STRENGTH


class TypedExpert(NamedTuple):
    """The file of an expert or a LoRA, and its strength; None if no strength was typed."""

    path: Path
    typed_strength: float | None

    @property
    def strength(self) -> float:
        """The strength, 1 by default."""
        return 1.0 if self.typed_strength is None else self.typed_strength

    @property
    def suffix(self) -> str:
        """Suffix of the name in reports: the strength, if it was typed."""
        return "" if self.typed_strength is None else f" at {self.typed_strength:g}"


def parse_stack(words: str) -> list[TypedExpert]:
    """Return an expert and the LoRAs beside it, as in `hate.safetensors=0.8+style.safetensors`.

    Raises:
        ValueError: if a strength is not a number from 0 to `MAX_STRENGTH`.
    """
    return [_typed_expert(part) for part in _split_stack(words)]


def split_file(words: str) -> tuple[str, str | None]:
    """Return a file and the text after its last equals sign; the name of an existing file may hold one."""
    name, sign, rest = words.rpartition("=")
    return (words, None) if not sign or Path(words).exists() else (name, rest)


def expert_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Return the shortest unique name of each file: its stem, with as many folders before it as needed.

    Run folders all call their expert `expert.safetensors`, so that `hate/expert.safetensors` and
    `violence/expert.safetensors` are named `hate/expert` and `violence/expert`.
    """
    parts = {path: path.with_suffix("").parts for path in paths}
    return {path: _shortest(folders, parts.values()) for path, folders in parts.items()}


def _shortest(parts: tuple[str, ...], all_parts: Iterable[tuple[str, ...]]) -> str:
    others = [other for other in all_parts if other != parts]
    tails = (parts[-length:] for length in range(1, len(parts) + 1))
    unique = (tail for tail in tails if all(other[-len(tail) :] != tail for other in others))
    return Path(*next(unique, parts)).as_posix()


def _split_stack(words: str) -> list[str]:
    """Return the parts between plus signs; the name of an existing file may hold one."""
    parts: list[str] = []
    for piece in words.split("+"):
        if parts and not Path(split_file(parts[-1])[0]).exists():
            parts[-1] += f"+{piece}"
        else:
            parts.append(piece)
    return parts


def _typed_expert(words: str) -> TypedExpert:
    path, written = split_file(words)
    try:
        strength = None if written is None else float(written)
    except ValueError:
        strength = -1.0
    if strength is not None and not 0 <= strength <= MAX_STRENGTH:
        raise ValueError(
            f"--expert takes a file and optionally =STRENGTH from 0 to {MAX_STRENGTH:g}, got {words!r}."
        )
    return TypedExpert(Path(path), strength)
