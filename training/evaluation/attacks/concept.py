"""A concept as a direction among encoded prompts: read pairs of prompts, average their differences, push.

Tsai et al. 2024, Ring-A-Bell, arXiv:2310.10012: the direction is the paper's. Feeding the pushed encoding to
the model directly, instead of searching for a prompt that encodes near it, is our choice: the search can only
approach this point, the addition costs nothing, and no prompt is left behind.
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
from ...system.texts import text_lines

BAR = "|"  # between the two prompts of a line
Encode = Callable[[str], Conditioning]  # prompt -> one row


class ConceptPair(NamedTuple):
    """Two prompts that differ only in a concept."""

    having: str
    lacking: str


class ConceptPairs(NamedTuple):
    """The usable pairs, and the dropped rows: reason -> names of the rows."""

    pairs: tuple[ConceptPair, ...]
    dropped: dict[str, list[str]]

    def report(self) -> str:
        """Return the number of pairs and the names of the dropped rows, never a prompt."""
        return "\n".join([f"{len(self.pairs)} pairs of prompts", *reason_lines(self.dropped)])


def parse_concept_pairs(text: str) -> ConceptPairs:
    """Parse lines of the form `prompt with the concept | the same prompt without it`; skip blank lines.

    Drops placeholders, equal halves, and rows that join sexual content with a word for a minor.

    Raises:
        ValueError: if no line is usable, or if the pairs together join sexual content with a word for a
            minor.
    """
    lines = enumerate(text_lines(text), start=1)
    return _usable_pairs((f"line {number}", _fields(line)) for number, line in lines if line.strip())


def read_concept_pairs(path: Path) -> ConceptPairs:
    """Read pairs from a paired file or folder; the unsafe prompt has the concept, the safe one lacks it.

    Args:
        path: CoProV2's CSV, Ring-A-Bell's CSV, JSON lines or a pairs folder, as `read_paired_prompts` reads
            them.

    Raises:
        ValueError: if there is no such file, if no row is usable, or if the pairs together join sexual
            content with a word for a minor.
    """
    return _usable_pairs(read_paired_prompts(path))


def _fields(line: str) -> Mapping[str, Any] | None:
    halves = line.split(BAR)
    return {"unsafe_prompt": halves[0], "safe_prompt": halves[1]} if len(halves) == 2 else None


def _usable_pairs(rows: Iterable[tuple[str, Mapping[str, Any] | None]]) -> ConceptPairs:
    pairs: list[ConceptPair] = []
    dropped: dict[str, list[str]] = {}
    for name, fields in rows:
        try:
            pairs.append(_pair(name, fields))
        except RowDroppedError as error:
            dropped.setdefault(error.reason, []).append(name)
    if not pairs:
        reasons = "\n".join(reason_lines(dropped)) or "there is no line."
        raise ValueError(
            "no pair of prompts can be used. Write one pair per line, as "
            f"`prompt with the concept {BAR} the same prompt without it`, or name a paired file.\n{reasons}"
        )
    if joins_minor_and_sexual((), *(text for pair in pairs for text in pair)):
        raise ValueError(
            "the pairs together join sexual content with a word for a minor, and the direction is their "
            "mean. They are refused, and no setting turns this rule off."
        )
    return ConceptPairs(tuple(pairs), dropped)


def _pair(name: str, fields: Mapping[str, Any] | None) -> ConceptPair:
    if fields is None:
        raise RowDroppedError(MALFORMED)
    row = read_text({"id": name, **fields}, ("unsafe_prompt", "safe_prompt"), ())
    return ConceptPair(row["unsafe_prompt"], row["safe_prompt"])


@dataclass(frozen=True, eq=False)  # holds tensors, so equality stays identity
class ConceptDirection:
    """What a concept adds to an encoded prompt, averaged over pairs.

    Args:
        conditioning: one row: (1, tokens, width), and (1, pooled width) where the encoder pools.
        num_pairs: number of pairs averaged.
        agreement: mean cosine between the difference of a pair and the direction, in [-1, 1]. A low value
            means that the pairs differ in other things too.
        lacking: mean encoding of the prompts without the concept, shaped as `conditioning`.
    """

    conditioning: Conditioning
    num_pairs: int
    agreement: float
    lacking: Conditioning

    def report(self) -> str:
        """Return size, length and agreement in two lines."""
        tokens, width = self.conditioning.text_embeds.shape[1:]
        length = float(self.conditioning.text_embeds.float().norm())
        return (
            f"direction of {tokens} tokens x {width}, length {length:.4g}\n"
            f"agreement of the {self.num_pairs} pairs: {self.agreement:.2f} (1: all differ in the same way)"
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
        encode: prompt to one row with a fixed number of tokens; the encoder's last hidden state.
        on_progress: called with (pairs done, pairs); may raise to cancel.

    Returns:
        The direction, fp32, on the device of the encoder's rows. Swapped pairs give its opposite.

    Raises:
        ValueError: if there is no pair, if the encoder gives rows of different lengths, or if the direction
            is zero.
    """
    if not pairs:
        raise ValueError("the direction of a concept needs at least one pair of prompts, got none.")
    total: list[Tensor] = []
    lacking_total: list[Tensor] = []
    unit_total: Tensor | float = 0.0  # of the differences scaled to length 1, for their cosines
    for number, pair in enumerate(pairs, start=1):
        having, lacking = (encode(prompt) for prompt in pair)
        parts = [_difference(a, b, number) for a, b in zip(having.tensors, lacking.tensors, strict=True)]
        total = _added(total, parts)
        lacking_total = _added(lacking_total, [part.float() for part in lacking.tensors])
        unit_total = unit_total + parts[0] / parts[0].norm().clamp(min=torch.finfo(torch.float32).tiny)
        on_progress(number, len(pairs))
    direction = Conditioning(*(part / len(pairs) for part in total))
    if not direction.text_embeds.any():
        raise ValueError(
            "the prompts encode alike with and without the concept, so it has no direction. Write pairs "
            "that differ within their first 77 tokens."
        )
    unit = direction.text_embeds / direction.text_embeds.norm()
    agreement = float((unit * unit_total).sum()) / len(pairs)
    mean_lacking = Conditioning(*(part / len(pairs) for part in lacking_total))
    return ConceptDirection(direction, len(pairs), agreement, mean_lacking)


def _added(total: list[Tensor], parts: list[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(total, parts, strict=True)] if total else parts


def _difference(having: Tensor, lacking: Tensor, number: int) -> Tensor:
    if having.shape != lacking.shape:
        raise ValueError(
            f"pair {number} encodes to {having.shape[1]} and {lacking.shape[1]} tokens. Shorten the "
            "longer prompt until both fit into one block of CLIP tokens."
        )
    return having.float() - lacking.float()


def stressed(
    conditioning: Conditioning, direction: ConceptDirection, eta: float, *, push_pooled: bool = True
) -> Conditioning:
    """Return c + eta * v: encoded prompts pushed along a concept.

    Args:
        conditioning: encoded prompts, any number of rows.
        direction: from the same encoder.
        eta: distance, dimensionless, >= 0; Ring-A-Bell uses 3 (nudity) and 5 to 5.5 (violence).
        push_pooled: push the pooled vector too, where there is one (our extension for SDXL).

    Returns:
        Rows with the dtype and device of `conditioning`; the same object for eta 0.

    Raises:
        ValueError: if eta is negative or not finite, or if the direction comes from another encoder.
    """
    if not 0 <= eta < math.inf:
        raise ValueError(f"eta must be a finite number >= 0, got {eta:g}.")
    check_shape(conditioning.text_embeds, direction.conditioning.text_embeds)
    if eta == 0:
        return conditioning
    pooled, push = conditioning.pooled, direction.conditioning.pooled
    if push_pooled and pooled is not None and push is not None:
        pooled = _pushed(pooled, push, eta)
    return Conditioning(_pushed(conditioning.text_embeds, direction.conditioning.text_embeds, eta), pooled)


def _pushed(embeds: Tensor, push: Tensor, eta: float) -> Tensor:
    return (embeds.float() + eta * push.to(embeds.device)).to(embeds.dtype)


def check_shape(embeds: Tensor, push: Tensor) -> None:
    """Check that encoded prompts and the direction of a concept come from one encoder.

    Args:
        embeds: encoded prompts, (n, tokens, width).
        push: direction, (1, tokens, width).

    Raises:
        ValueError: if tokens or width differ.
    """
    if embeds.shape[1:] != push.shape[1:]:
        (tokens, width), (push_tokens, push_width) = embeds.shape[1:], push.shape[1:]
        raise ValueError(
            f"the prompt encodes to {tokens} tokens x {width}, but the direction of the concept has "
            f"{push_tokens} tokens x {push_width}. Encode both with the CLIP of one checkpoint, and keep the "
            "prompt within one block of tokens."
        )
