"""Turn prompts into pairs of prompts: every rewrite is checked, every rejected line counted by its reason.

Safe rewriting after the idea of SR_LLM (Raza et al. 2024, arXiv:2404.01399). That is a fine-tuned language
model, whose data were never released; here the person brings the rewriter, and the checks are ours.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F

from ...config import RewriteConfig
from ...models.tokenizer import NUM_TOKENS, load_tokenizer
from ...pairs.report import HARD_RULE, NAMED
from ...pairs.rows import is_placeholder, prompt_key
from ...rules.hard_rule import joins_minor_and_sexual
from ...system.texts import text_lines
from ..local_endpoint import EndpointError
from .term_table import TermTable

REPEATED = "the prompt occurs before"
NO_REWRITE = "there is no rewrite for it"
NO_ANSWER = "the endpoint gave no answer"
PLACEHOLDER = "the rewrite is a placeholder"
UNCHANGED = "the rewrite says the same"
TERM_LEFT = "a term of the table is left in the rewrite"
TOO_FAR = "the rewrite shares too few words with the prompt"
OTHER_MEANING = "the rewrite means something else"
SAME_MEANING = "the rewrite means the same"
TOO_SHORT = "the rewrite is too short"
TOO_LONG = "the rewrite is too long"
TOO_MANY_TOKENS = f"the rewrite is longer than the {NUM_TOKENS} tokens CLIP reads"
MEANING = (0.6, 0.98)  # cosines of sentence embeddings between which a rewrite is accepted, our choice
_MAX_FAILURES = 3  # in a row; after them the endpoint is not asked again


@dataclass
class Rewritten:
    """Accepted pairs of prompts, and the lines that were rejected.

    Args:
        pairs: unsafe and safe prompts, in the order of the lines.
        categories: categories of all pairs; may be empty.
        rejected: reason -> line numbers.
        terms_checked: whether the rewrites were checked for terms of a table.
    """

    pairs: list[tuple[str, str]] = field(default_factory=list)
    categories: tuple[str, ...] = ()
    rejected: dict[str, list[int]] = field(default_factory=dict)
    terms_checked: bool = False

    @property
    def safe_prompts(self) -> str:
        """The safe halves, one per line."""
        return "\n".join(safe for _, safe in self.pairs)

    def facts(self) -> dict[str, Any]:
        """Return the counts and line numbers as plain values, without a prompt."""
        return {
            "accepted": len(self.pairs),
            "categories": list(self.categories),
            "rejected": self.rejected,
            "terms_checked": self.terms_checked,
        }

    def jsonl(self) -> str:
        """Return both halves, one JSON object per line, as `parse_prompt_pairs` reads them."""
        shared = {"category": list(self.categories)} if self.categories else {}
        rows = ({**shared, "unsafe_prompt": unsafe, "safe_prompt": safe} for unsafe, safe in self.pairs)
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def report(self) -> str:
        """Return the counts for people; lines are identified by number, never by their text."""
        total = sum(map(len, self.rejected.values()))
        lines = [f"{len(self.pairs)} prompts rewritten, {total} rejected."]
        if self.pairs and not self.terms_checked:
            lines.append(f"- unsafe terms not checked: {len(self.pairs)}, because there is no table of terms")
        for reason, numbers in self.rejected.items():
            more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
            lines.append(f"- {reason}: {len(numbers)} (line {', '.join(map(str, numbers[:NAMED]))}{more})")
        return "\n".join(lines)


class RejectedError(Exception):
    """Raised to reject one prompt; its text is the reason."""


class NoRewriteError(ValueError):
    """Raised when no rewrite was accepted; its text counts the reasons."""


def rewrite_prompts(
    text: str,
    rewrite: Callable[[str], str | None],
    config: RewriteConfig,
    *,
    terms: TermTable | None = None,
    categories: Sequence[str] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> Rewritten:
    """Write the safe half of every line of a text.

    A line that combines sexual content with a word for a minor is never passed to the rewriter, and such a
    rewrite is never returned. No rewrite is repaired: it passes every check, or its line is rejected.

    Args:
        text: one prompt per line; blank lines are skipped.
        rewrite: returns the safe half of a prompt, or None if it has none.
        config: limits for accepting a rewrite.
        terms: terms that no rewrite may contain, in any inflection. None skips this check, which the report
            says.
        categories: categories of the prompts, for the rule on minors and for the result.
        on_progress: called with (done, total) after each prompt; an exception it raises stops the work.

    Raises:
        NoRewriteError: if no rewrite is accepted.
        ValueError: if there is no prompt, or meanings cannot be compared.
        EndpointError: if the endpoint does not answer the first prompt.
    """
    lines = prompt_lines(text)
    checks = _Checks(config, terms, tuple(categories))
    asker = _Asker(rewrite)
    result = Rewritten(categories=checks.categories, terms_checked=terms is not None)
    for done, (number, prompt) in enumerate(lines, start=1):
        try:
            checks.prompt(prompt)
            safe = asker(prompt)
            checks.pair(prompt, safe)
            result.pairs.append((prompt, safe))
        except RejectedError as rejected:
            result.rejected.setdefault(str(rejected), []).append(number)
        if on_progress:
            on_progress(done, len(lines))
    if not result.pairs:
        raise NoRewriteError(f"no rewrite was accepted. {result.report()}")
    return result


def prompt_lines(text: str) -> list[tuple[int, str]]:
    """Return the prompts of a text with the numbers of their lines, from 1; blank lines are skipped.

    Raises:
        ValueError: if there is no prompt.
    """
    lines = [(n, line.strip()) for n, line in enumerate(text_lines(text), start=1) if line.strip()]
    if not lines:
        raise ValueError("there is no prompt to rewrite. Write one prompt per line.")
    return lines


class _Asker:
    """Calls the rewriter.

    If an endpoint fails before its first answer, the error stops the work; later it only costs the line.
    """

    def __init__(self, rewrite: Callable[[str], str | None]) -> None:
        self._rewrite = rewrite
        self._has_answered = False
        self._failures = 0

    def __call__(self, prompt: str) -> str:
        if self._failures >= _MAX_FAILURES:
            raise RejectedError(NO_ANSWER)
        try:
            safe = self._rewrite(prompt)
        except EndpointError as error:
            self._failures += 1
            if not self._has_answered:
                raise  # nothing is lost yet, and the error says what to do
            raise RejectedError(NO_ANSWER) from error
        except RejectedError:
            self._has_answered, self._failures = True, 0  # it did answer
            raise
        self._has_answered, self._failures = True, 0
        if safe is None or not safe.strip():
            raise RejectedError(NO_REWRITE)
        return " ".join(safe.split())  # one line


class _Checks:
    """The checks of a prompt and its rewrite; the first check that fails gives the reason."""

    def __init__(self, config: RewriteConfig, terms: TermTable | None, categories: tuple[str, ...]) -> None:
        self.categories = categories
        self._config, self._terms = config, terms
        self._seen: set[str] = set()
        self._tokenizer = load_tokenizer()
        from ...evaluation.measures.sentences import PACKAGE, find_sentences  # heavy at ComfyUI's start

        self._sentences = find_sentences() if config.check_meaning else None
        if config.check_meaning and self._sentences is None:
            raise ValueError(
                f"check_meaning needs the package {PACKAGE}, which is not installed. Install it (pip install "
                f"{PACKAGE}) and start again, or switch check_meaning off."
            )

    def prompt(self, prompt: str) -> None:
        """Reject a prompt that must not be passed to a rewriter, or was passed before."""
        if joins_minor_and_sexual(self.categories, prompt):
            raise RejectedError(HARD_RULE)
        if prompt_key(prompt) in self._seen:
            raise RejectedError(REPEATED)
        self._seen.add(prompt_key(prompt))

    def pair(self, prompt: str, safe: str) -> None:
        """Reject a rewrite that must not be used."""
        words, safe_words = _words(prompt), _words(safe)
        ratio = len(safe_words) / max(len(words), 1)
        checks = (
            (HARD_RULE, lambda: joins_minor_and_sexual(self.categories, prompt, safe)),
            (PLACEHOLDER, lambda: is_placeholder(safe)),
            (UNCHANGED, lambda: words == safe_words),
            (TERM_LEFT, lambda: self._has_term(safe)),
            (TOO_FAR, lambda: word_overlap(prompt, safe) < self._config.min_overlap),
            (TOO_SHORT, lambda: ratio < self._config.min_length_ratio),
            (TOO_LONG, lambda: ratio > self._config.max_length_ratio),
            (TOO_MANY_TOKENS, lambda: self._num_tokens(safe) > NUM_TOKENS),
            (OTHER_MEANING, lambda: self._sentences and self._meaning(prompt, safe) < MEANING[0]),
            (SAME_MEANING, lambda: self._sentences and self._meaning(prompt, safe) > MEANING[1]),
        )
        for reason, fails in checks:
            if fails():
                raise RejectedError(reason)

    def _meaning(self, prompt: str, safe: str) -> float:
        """Return the cosine of the sentence embeddings of both, in [-1, 1]."""
        return float(F.cosine_similarity(*self._sentences.embed([prompt, safe]).split(1)))

    def _has_term(self, text: str) -> bool:
        return self._terms is not None and self._terms.has_any_form(text)

    def _num_tokens(self, text: str) -> int:
        return len(self._tokenizer([text], verbose=False).input_ids[0])


def word_overlap(first: str, second: str) -> float:
    """Return the Jaccard index of the words of two texts, |A & B| / |A | B|, in [0, 1]."""
    first_words, second_words = set(_words(first)), set(_words(second))
    return len(first_words & second_words) / max(len(first_words | second_words), 1)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
