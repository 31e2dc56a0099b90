"""What stands in front of a model and reads its prompts: `GUARDS`, one file format, one verdict.

To add a guard: write its file with a function that makes the guard of a `GuardFile`, and add its line to
`GUARDS`. Every guard has `look(prompt) -> GuardVerdict`, asks the rule on minors first, is bound to a text
encoder, has a threshold that was set at a chosen false-positive rate, and repeats no prompt in any report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor

from ..config.guard import CLIP
from .concept_guard import FILE_KIND, ConceptGuard, guard_of_file, save_guard
from .encoder import GuardEncoder, clip_encoder, sentence_encoder, with_summary
from .guard_file import GuardFile, read_guard_file
from .interpreter import FILE_KIND as INTERPRETER_FILE
from .interpreter import Interpreter, interpreter_of_file, language
from .verdict import ADVICE, GuardVerdict

__all__ = [
    "ADVICE",
    "GUARDS",
    "ConceptGuard",
    "Guard",
    "GuardEncoder",
    "GuardKind",
    "GuardVerdict",
    "Interpreter",
    "clip_encoder",
    "guard_of_tokens",
    "language",
    "open_guard",
    "save_guard",
    "sentence_encoder",
]


class Guard(Protocol):
    """What every guard can do."""

    threshold: float

    def look(self, prompt: str) -> GuardVerdict:
        """Return the verdict on a prompt."""

    def at(self, threshold: float | None) -> Guard:
        """Return the guard with another threshold; None keeps the one of the file."""

    def describe(self) -> str:
        """Return what the guard is and how its threshold was set, in words."""


class GuardKind(NamedTuple):
    """A kind of guard.

    Attributes:
        summary: for people.
        reference: where it was published.
        file_kind: what its files say they are.
        of_file: f(content of a file, text encoder) -> the guard.
    """

    summary: str
    reference: str
    file_kind: str
    of_file: Callable[[GuardFile, GuardEncoder], Guard]


GUARDS = {
    "concept": GuardKind(
        "blocks prompts near a concept of a list (Latent Guard)", "arXiv:2404.08031", FILE_KIND, guard_of_file
    ),
    "interpreter": GuardKind(
        "blocks prompts that mean something else than they say, or a listed word (GuardT2I)",
        "arXiv:2403.01446",
        INTERPRETER_FILE,
        interpreter_of_file,
    ),
}


def guard_of_tokens(guard: Guard, free_tokens: int) -> Callable[[Tensor], Tensor]:
    """Return what a guard blocks among encoded tokens, for attacks that search tokens instead of words.

    Args:
        guard: must read the CLIP that the tokens were encoded with.
        free_tokens: tokens between the start mark and the first end mark.

    Returns:
        Function from last hidden states (n, tokens, width) to flags (n,), on the CPU.

    Raises:
        ValueError: if the guard reads another encoder, which sees words and not tokens, or compares the words
            of a prompt with its encoding, as an interpreter does.
    """
    if not isinstance(guard, ConceptGuard) or guard.encoder.kind != CLIP:
        raise ValueError(
            "this attack searches tokens of CLIP, so it needs a guard of the kind `concept` with the encoder "
            "`clip`. Attack other guards by words."
        )

    def is_blocked(states: Tensor) -> Tensor:
        blocks = [with_summary(rows[: free_tokens + 2].float().cpu()) for rows in states]
        return guard.scores(blocks).max(dim=1).values >= guard.threshold

    return is_blocked


def open_guard(path: Path, encoders: Mapping[str, Callable[[], GuardEncoder]]) -> Guard:
    """Return the guard of a file, bound to its text encoder.

    Args:
        path: the .safetensors file.
        encoders: kind -> function that returns the encoder of that kind; only the one that the guard reads is
            called.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no guard, damaged, or made for another text encoder.
    """
    file = read_guard_file(path)
    for kind in GUARDS.values():
        if kind.file_kind == file.kind:
            if file.encoder not in encoders:
                raise ValueError(
                    f"{file.name} reads an unknown text encoder, {file.encoder!r}. Train it anew."
                )
            return kind.of_file(file, encoders[file.encoder]())
    raise ValueError(f"{file.name} is a guard of an unknown kind, {file.kind!r}. Update this pack.")
