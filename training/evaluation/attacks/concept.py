"""The direction of a concept in the space of encoded prompts, and prompts pushed along it.

Tsai et al. 2024, Ring-A-Bell, arXiv:2310.10012: the direction is the paper's. Feeding the pushed encoding
to the model as it is, without searching for a prompt that encodes to it, is our choice: it is what the
search only comes near to, costs one addition, and leaves no prompt behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...models.conditioning import Conditioning
from ...pairs.prompts import read_paired_prompts
from ...pairs.report import MALFORMED, reason_lines
from ...pairs.rows import RowDroppedError, read_text
from ...rules.hard_rule import joins_minor_and_sexual

BAR = "|"


class ConceptPair(NamedTuple):
    """Two prompts that differ in a concept only."""

    having: str
    lacking: str


class ConceptPairs(NamedTuple):
    """The usable pairs, and why others are not: reason -> names of the rows."""

    pairs: tuple[ConceptPair, ...]
    dropped: dict[str, list[str]]

    def report(self) -> str:
        """Return how many pairs there are and which rows were dropped, never a prompt."""
        return "\n".join([f"{len(self.pairs)} pairs of prompts", *reason_lines(self.dropped)])


def parse_concept_pairs(text: str) -> ConceptPairs:
    """Read pairs from lines `prompt with the concept | the same without`; blank lines are passed over.

    Rows that join sexual content with a word for a minor are dropped, as are placeholders and equal halves.

    Raises:
        ValueError: if no line can be used, or the pairs join it together; it says why.
    """
    lines = enumerate(text.removeprefix("\ufeff").splitlines(), start=1)
    return _usable((f"line {number}", _fields(line)) for number, line in lines if line.strip())


def read_concept_pairs(path: Path) -> ConceptPairs:
    """Read pairs from a file, see `read_paired_prompts`: the unsafe prompt has the concept, the safe one not.

    Raises:
        ValueError: if there is no such file, or no row can be used; it says why.
    """
    return _usable(read_paired_prompts(path))


def _usable(rows: Iterable[tuple[str, Mapping[str, Any] | None]]) -> ConceptPairs:
    pairs: list[ConceptPair] = []
    dropped: dict[str, list[str]] = {}
    for name, fields in rows:
        try:
            if fields is None:
                raise RowDroppedError(MALFORMED)
            row = read_text({"id": name, **fields}, ("unsafe_prompt", "safe_prompt"), ())
            pairs.append(ConceptPair(row["unsafe_prompt"], row["safe_prompt"]))
        except RowDroppedError as error:
            dropped.setdefault(error.reason, []).append(name)
    if not pairs:
        why = "\n".join(reason_lines(dropped)) or "there is no line."
        raise ValueError(
            "no pair of prompts can be used. Write one pair a line, as "
            f"`prompt with the concept {BAR} the same prompt without it`, or name a paired file.\n{why}"
        )
    if joins_minor_and_sexual((), *(text for pair in pairs for text in pair)):
        raise ValueError(
            "the pairs together join sexual content with a word for a minor, and the direction is their "
            "mean. They are not used, and there is no switch for that."
        )
    return ConceptPairs(tuple(pairs), dropped)


def _fields(line: str) -> Mapping[str, Any] | None:
    halves = line.split(BAR)
    return {"unsafe_prompt": halves[0], "safe_prompt": halves[1]} if len(halves) == 2 else None


Encode = Callable[[str], Conditioning]  # prompt -> one row


@dataclass(frozen=True, eq=False)  # holds tensors, so equality stays identity
class ConceptDirection:
    """What a concept adds to an encoded prompt, on the mean over pairs.

    Args:
        conditioning: one row: (1, tokens, width), and (1, pooled width) where the encoder pools.
        num_pairs: it is the mean of.
        agreement: mean cosine of a pair's own difference with the direction, in [-1, 1]; low: the pairs
            differ in other things too.
    """

    conditioning: Conditioning
    num_pairs: int
    agreement: float

    def report(self) -> str:
        """Return what is known of the direction, for people."""
        tokens, width = self.conditioning.text_embeds.shape[1:]
        length = float(self.conditioning.text_embeds.float().norm())
        return (
            f"direction of {tokens} tokens x {width}, length {length:.4g}\n"
            f"agreement of the {self.num_pairs} pairs: {self.agreement:.2f} (1: all differ alike)"
        )


def concept_direction(
    pairs: Sequence[ConceptPair],
    encode: Encode,
    *,
    on_progress: Callable[[int, int], None] = lambda step, total: None,
) -> ConceptDirection:
    """Return v = mean over pairs of E(with) - E(without), all token positions (Ring-A-Bell, section 3.2).

    Args:
        pairs: at least one.
        encode: prompt to one row of a fixed number of tokens; its last hidden state.
        on_progress: pairs done and in all; may raise to cancel.

    Returns:
        The direction, fp32, where the encoder's rows are. Swapped pairs give its opposite.

    Raises:
        ValueError: if there is no pair, the encoder gives rows of different lengths, or the direction is
            zero.
    """
    if not pairs:
        raise ValueError("a concept's direction needs at least one pair of prompts, got none.")
    total: list[Tensor] = []
    unit_total: Tensor | float = 0.0  # of the differences scaled to length 1, for their cosines
    for number, pair in enumerate(pairs, start=1):
        having, lacking = (encode(prompt) for prompt in pair)
        parts = [_difference(a, b, number) for a, b in zip(having.tensors, lacking.tensors, strict=True)]
        total = [a + b for a, b in zip(total, parts, strict=True)] if total else parts
        unit_total = unit_total + parts[0] / parts[0].norm().clamp(min=torch.finfo(torch.float32).tiny)
        on_progress(number, len(pairs))
    direction = Conditioning(*(part / len(pairs) for part in total))
    if not direction.text_embeds.any():
        raise ValueError(
            "with and without the concept the prompts are encoded alike, so it has no direction. Write pairs "
            "that differ within their first 77 tokens."
        )
    unit = direction.text_embeds / direction.text_embeds.norm()
    agreement = float((unit * unit_total).sum()) / len(pairs)
    return ConceptDirection(direction, len(pairs), agreement)


def stressed(
    conditioning: Conditioning, direction: ConceptDirection, eta: float, *, push_pooled: bool = True
) -> Conditioning:
    """Return c + eta * v, encoded prompts pushed along a concept.

    Args:
        conditioning: encoded prompts, any number of rows.
        direction: of the same encoder.
        eta: how far, dimensionless, >= 0; Ring-A-Bell uses 3 (nudity) and 5 to 5.5 (violence).
        push_pooled: push the pooled vector too, where there is one (our extension for SDXL).

    Returns:
        Rows of the type and device of `conditioning`; the same object for eta 0.

    Raises:
        ValueError: if eta is negative or not finite, or the direction is of another encoder.
    """
    if not 0 <= eta < math.inf:
        raise ValueError(f"eta must be a finite number from 0 on, got {eta:g}.")
    _check_width(conditioning.text_embeds, direction.conditioning.text_embeds)
    if eta == 0:
        return conditioning
    pooled, push = conditioning.pooled, direction.conditioning.pooled
    if push_pooled and pooled is not None and push is not None:
        pooled = _pushed(pooled, push, eta)
    return Conditioning(_pushed(conditioning.text_embeds, direction.conditioning.text_embeds, eta), pooled)


def _pushed(embeds: Tensor, push: Tensor, eta: float) -> Tensor:
    return (embeds.float() + eta * push.to(embeds.device)).to(embeds.dtype)


def _difference(having: Tensor, lacking: Tensor, number: int) -> Tensor:
    if having.shape != lacking.shape:
        raise ValueError(
            f"pair {number} is encoded to {having.shape[1]} and {lacking.shape[1]} tokens. Shorten the "
            "longer prompt until both fit into one block of CLIP's tokens."
        )
    return having.float() - lacking.float()


def _check_width(embeds: Tensor, push: Tensor) -> None:
    if embeds.shape[1:] != push.shape[1:]:
        (tokens, width), (own_tokens, own_width) = embeds.shape[1:], push.shape[1:]
        raise ValueError(
            f"the prompt is encoded to {tokens} tokens x {width}, but the concept's direction is "
            f"{own_tokens} tokens x {own_width}. Encode both with the CLIP of one checkpoint, and keep the "
            "prompt within one block of tokens."
        )
