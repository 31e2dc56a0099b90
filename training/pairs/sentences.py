"""Everyday words in the sentences of the pairs: the prompts that an expert changes most by mistake.

A text encoder makes nearly the same of two prompts that differ in one word. An expert that learns what to do
with "a knife on a table" therefore begins with everything on a table. Here an unsafe prompt keeps the words
that its safe prompt has too, and everyday words take the place of the others: "a kettle on a table". What
training keeps then lies as near to what it changes as a prompt can, and only the unsafe words are left to
tell them apart. Our choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import cycle
from typing import NamedTuple

from .everyday import Everyday

_SHORTEST = 4  # letters of an everyday word that is put in
_HOLDS = 2  # letters; words as short hold a sentence together, and stay
_BETWEEN_WORDS = re.compile(r"(\W+)")


class _Sentence(NamedTuple):
    """An unsafe prompt, cut into words and what is between them.

    Attributes:
        parts: words at even places, what is between them at odd ones.
        slots: places of the words that everyday words replace.
    """

    parts: tuple[str, ...]
    slots: tuple[int, ...]

    @property
    def unsafe_words(self) -> set[str]:
        """The words that are replaced, in lower case."""
        return {self.parts[slot].lower() for slot in self.slots}

    def filled(self, words: Iterator[str]) -> str:
        """Return the sentence with the next words in its slots."""
        chosen = {slot: next(words) for slot in self.slots}
        return "".join(chosen.get(place, part) for place, part in enumerate(self.parts))


def with_sentences(everyday: Everyday, prompts: Iterable[tuple[str, str]]) -> Everyday:
    """Add as many sentences of the pairs as there are everyday prompts, with words of these prompts.

    The sentences to be measured have words of their own, so none of them is kept. No word that makes a prompt
    of the pairs unsafe is put in.

    Args:
        everyday: whole prompts.
        prompts: the unsafe and the safe prompt of each pair; the unsafe ones are the sentences. A pair gives
            none if its prompts share no word, or if the unsafe one has no longer word of its own.
    """
    sentences = [found for both in dict.fromkeys(prompts) if (found := _sentence(*both)) is not None]
    if not sentences:
        return everyday
    unsafe = set().union(*(sentence.unsafe_words for sentence in sentences))
    return Everyday(*(_with_as_many(part, sentences, unsafe) for part in everyday))


def _with_as_many(
    prompts: tuple[str, ...], sentences: Sequence[_Sentence], unsafe: set[str]
) -> tuple[str, ...]:
    found = (word for prompt in prompts for word in _BETWEEN_WORDS.split(prompt.lower()))
    words = dict.fromkeys(word for word in found if len(word) >= _SHORTEST and word not in unsafe)
    count = len(prompts) if words else 0
    supply = cycle(words)
    spread = (sentences[number * len(sentences) // count] for number in range(count))  # over all of them
    return (*prompts, *(sentence.filled(supply) for sentence in spread))


def _sentence(unsafe: str, safe: str) -> _Sentence | None:
    parts = tuple(_BETWEEN_WORDS.split(unsafe))
    words, others = ([word.lower() for word in _BETWEEN_WORDS.split(text)[::2]] for text in (unsafe, safe))
    blocks = SequenceMatcher(None, words, others, autojunk=False).get_matching_blocks()
    shared = {block.a + number for block in blocks for number in range(block.size) if words[block.a + number]}
    own = [number for number in range(len(words)) if number not in shared]
    slots = tuple(2 * number for number in own if len(words[number]) > _HOLDS)
    return _Sentence(parts, slots) if shared and slots else None
