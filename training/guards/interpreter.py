"""GuardT2I: say in words what a text encoder understood, and block a prompt that says something else.

Written after Yang et al. 2024, arXiv:2403.01446. A small decoder turns the one row that stands for a prompt
back into words. An ordinary prompt comes back nearly as it was. One that was searched against the encoder, or
that hides its meaning in a spelling, comes back as what the model would draw, which is unlike its text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config.guard import CLIP
from ..evaluation.measures.sentences import PACKAGE, find_sentences
from ..models.tokenizer import END_MARK, load_tokenizer
from ..rules.hard_rule import joins_minor_and_sexual
from ..rules.terms import Terms
from .calibration import Calibration
from .decoder import FREE_TOKENS, Decoder, DecoderShape
from .encoder import GuardEncoder
from .guard_file import GuardFile
from .verdict import GuardVerdict

FILE_KIND = "interpreter"
WORD, UNLIKE = "blocked word", "unlike its meaning"  # reasons
WORD_SCORE = 2.0  # of an interpretation with a blocked word: the largest that 1 - cosine can be
_MARKS = 3  # rows of a block that are no token of the prompt: its summary, start and end mark


class Interpretation(NamedTuple):
    """What an interpreter makes of one block of a prompt.

    Attributes:
        text: the words that the encoder's row stands for.
        similarity: cosine of their meaning with that of the block's own text; exactly 1 if both are equal.
        has_word: whether they hold a blocked word.
    """

    text: str
    similarity: float
    has_word: bool


@dataclass(frozen=True, eq=False)
class Language:
    """What an interpreter needs besides its weights.

    Args:
        ids: f(text) -> ids of CLIP's tokens, without marks.
        text: f(ids) -> text.
        embed: f(n sentences) -> their meaning, (n, width); see `measures.sentences`.
        name: of the sentence model, for people.
    """

    ids: Callable[[str], list[int]]
    text: Callable[[Sequence[int]], str]
    embed: Callable[[Sequence[str]], Tensor]
    name: str


def language(device: torch.device | str = "cpu") -> Language:
    """Return CLIP's tokens and MiniLM's meanings.

    Raises:
        ValueError: if the package of the sentence model is not installed, or damaged.
    """
    sentences = find_sentences(device)
    if sentences is None:
        raise ValueError(
            f"an interpreter compares meanings with the package {PACKAGE}, which is not installed. Install "
            f"it (pip install {PACKAGE}) and start again, or use a guard of the kind `concept`."
        )
    tokenizer = load_tokenizer()

    def ids(text: str) -> list[int]:
        return tokenizer([text], verbose=False).input_ids[0][1:-1]

    return Language(ids, lambda ids: tokenizer.decode(ids), sentences.embed, sentences.name)


@dataclass(frozen=True, eq=False, repr=False)
class Interpreter:
    """A trained decoder with its threshold, bound to a text encoder.

    Args:
        decoder: says what a row stands for.
        vocabulary: CLIP's id of each token that it says, (vocabulary,).
        encoder: reads the prompts.
        language: tokens and meanings.
        calibration: of the threshold in the file.
        threshold: scores from it on are blocked; a score is 1 - similarity, or `WORD_SCORE`.
        words: the person's blocked words; None: there are none. No file holds them.
        facts: everything else that the file holds.
    """

    decoder: Decoder
    vocabulary: Tensor
    encoder: GuardEncoder
    language: Language
    calibration: Calibration
    threshold: float
    words: Terms | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Interpreter({len(self.vocabulary)} tokens)"  # a host writes it into its history

    def look(self, prompt: str) -> GuardVerdict:
        """Return the verdict on a prompt; the rule on minors is asked first, before the encoder sees it."""
        if joins_minor_and_sexual((), prompt):
            return GuardVerdict.of_rule(self.threshold)
        parts = self.interpret(prompt)
        # the prompt's own words count too, our choice: the decoder says only words of its captions
        has_word = self._has_word(prompt) or any(part.has_word for part in parts)
        score = WORD_SCORE if has_word else 1 - min(part.similarity for part in parts)
        is_blocked = score >= self.threshold
        reason = (WORD if has_word else UNLIKE) if is_blocked else ""
        return GuardVerdict(is_blocked, score, self.threshold, reason)

    def interpret(self, prompt: str) -> list[Interpretation]:
        """Return what the encoder understood of each block; the worst decides, as a mean would hide it.

        The caller must have asked the rule on minors. What comes back may be as harmful as the prompt.
        """
        ids = self.language.ids(prompt)
        blocks = self.encoder.blocks(prompt)
        texts = [self.language.text(ids[at : at + FREE_TOKENS]) for at in range(0, len(ids), FREE_TOKENS)]
        if len(texts) != len(blocks):  # an encoder that divides long prompts in another way, or an empty one
            texts = [prompt] * len(blocks)
        said = [self._say(block) for block in blocks]
        meanings = F.normalize(self.language.embed([*texts, *said]).float(), dim=-1)
        cosines = (meanings[: len(texts)] * meanings[len(texts) :]).sum(dim=-1).tolist()
        return [
            # of equal texts it is 1 whatever the rounding, because a threshold may lie just above 0
            Interpretation(back, 1.0 if back == text else cosine, self._has_word(back))
            for text, back, cosine in zip(texts, said, cosines, strict=True)
        ]

    def _has_word(self, text: str) -> bool:
        return self.words is not None and self.words.has_any_form(text)

    def _say(self, block: Tensor) -> str:
        numbers = self.decoder.say(block[0].float(), len(block) - _MARKS)
        return self.language.text([int(self.vocabulary[number]) for number in numbers])

    def at(self, threshold: float | None) -> Interpreter:
        """Return the interpreter with another threshold; None keeps the one of the file."""
        return self if threshold is None else replace(self, threshold=threshold)

    def blocking(self, words: Terms | None) -> Interpreter:
        """Return the interpreter with the person's blocked words."""
        return replace(self, words=words)

    def only(self, words: Iterable[str]) -> Interpreter:
        """Refuse a list of concepts, which only guards of the kind `concept` have.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "this guard is an interpreter, which compares meanings and has no concepts. Leave the list of "
            "concepts empty, or choose a guard of the kind `concept`."
        )

    def describe(self) -> str:
        """Return what it is, in words."""
        size = f"says {len(self.vocabulary)} tokens; encoder: {self.encoder.name}"
        lines = [f"interpreter that {size}; meaning: {self.language.name}", self.calibration.text()]
        if self.words is None:
            lines.append("no blocked words: only the meaning decides")
        if self.threshold != self.calibration.threshold:
            lines.append(f"threshold changed to {self.threshold:.3f}: the rates above are not its own")
        return "\n".join(lines)

    def file(self) -> GuardFile:
        """Return what is written to disk."""
        tensors = {
            **self.decoder.state_dict(),
            "vocabulary": self.vocabulary.float(),
        }  # ids are exact in fp32
        facts = {**self.facts, "heads": self.decoder.shape.heads}
        return GuardFile(FILE_KIND, CLIP, self.encoder.id, self.calibration, tensors, facts)


def interpreter_of_file(
    file: GuardFile, encoder: GuardEncoder, spoken: Language | None = None
) -> Interpreter:
    """Return the interpreter of a file.

    Args:
        file: from `read_guard_file`.
        encoder: the text encoder of the model that it stands in front of.
        spoken: tokens and meanings; None takes `language`.

    Raises:
        ValueError: if the file is of another kind, is incomplete, or was trained for another encoder.
    """
    if file.kind != FILE_KIND:
        raise ValueError(f"{file.name} is a guard of the kind {file.kind!r}, not {FILE_KIND!r}.")
    file.check_encoder(encoder)
    tensors, facts = dict(file.tensors), dict(file.facts)
    wrong = f"the decoder in {file.name} is incomplete or misshapen. Train the guard again."
    vocabulary, heads = tensors.pop("vocabulary", None), facts.pop("heads", None)
    try:
        layers = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("layers."))
        row_width = tensors["layers.0.condition.weight"].shape[1]
        shape = DecoderShape(row_width, tensors["places"].shape[1], layers, heads, len(vocabulary))
        if type(heads) is not int or heads < 1 or shape.width % heads or layers > len(tensors):
            raise ValueError(wrong)
        with torch.device("meta"):  # the sizes of a small file can make a decoder of terabytes
            decoder = Decoder(shape)
        if {name: weight.shape for name, weight in decoder.state_dict().items()} != {
            name: weight.shape for name, weight in tensors.items()
        }:
            raise ValueError(wrong)
        if not bool(((vocabulary >= 0) & (vocabulary <= END_MARK) & (vocabulary % 1 == 0)).all()):
            raise ValueError(wrong)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(wrong) from error
    decoder.load_state_dict({name: weight.float() for name, weight in tensors.items()}, assign=True)
    decoder.requires_grad_(False).eval()
    calibration, ids = file.calibration, vocabulary.long()
    known = spoken or language()
    return Interpreter(decoder, ids, encoder, known, calibration, calibration.threshold, None, facts)
