"""Names of files of experts, as short as they can be while no two are the same."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def expert_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Return a name for each file: its own without ending, behind the folders that tell it from the others.

    Run folders all call theirs `expert.safetensors`: of `hate/expert.safetensors` and
    `violence/expert.safetensors` come `hate/expert` and `violence/expert`.
    """
    parts = {path: path.with_suffix("").parts for path in paths}
    return {
        path: _shortest(own, [each for each in parts.values() if each != own]) for path, own in parts.items()
    }


def _shortest(own: tuple[str, ...], others: list[tuple[str, ...]]) -> str:
    tails = (own[-length:] for length in range(1, len(own) + 1))
    return Path(
        *next((tail for tail in tails if all(each[-len(tail) :] != tail for each in others)), own)
    ).as_posix()
