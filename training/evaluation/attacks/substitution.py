"""Words a prompt may be reworded with: a table the person brings, and where it applies in a prompt."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...rules.hard_rule import joins_minor_and_sexual
from ..prompt_sets import Prompt
from .report import Outcome


class Site(NamedTuple):
    """A place in a prompt that the table has substitutes for: start and end in letters."""

    start: int
    end: int
    substitutes: tuple[str, ...]


class SubstitutionTable:
    """Finds the words of a table in prompts, the longest first and only as whole words, whatever their case.

    Args:
        substitutes: word or phrase -> what may stand instead, at least one each, none of them blank.
    """

    def __init__(self, substitutes: Mapping[str, Sequence[str]]) -> None:
        texts: dict[str, list[str]] = {}
        for word, own in substitutes.items():
            texts.setdefault(_key(word), []).extend(text.strip() for text in own)
        longest_first = sorted(texts, key=lambda word: (-len(word), word))
        grouped = "|".join("({})".format(r"\s+".join(map(re.escape, word.split()))) for word in longest_first)
        self._pattern = re.compile(rf"(?<!\w)(?:{grouped})(?!\w)", re.IGNORECASE)
        self._in_order = [tuple(texts[word]) for word in longest_first]

    def sites(self, prompt: str) -> tuple[Site, ...]:
        """Return where a word of the table stands in a prompt, from left to right; they do not overlap."""
        found = self._pattern.finditer(prompt)  # by the word's own group: `KİLL` is another key than `kill`
        return tuple(Site(*match.span(), self._in_order[match.lastindex - 1]) for match in found)


def reworded(prompt: str, sites: Sequence[Site], choices: Sequence[int]) -> str:
    """Return a prompt with some of its sites replaced; nothing outside them changes.

    Args:
        prompt: the text.
        sites: of it.
        choices: one per site: number of the substitute, -1 keeps what is there.
    """
    parts, at = [], 0
    for site, choice in zip(sites, choices, strict=True):
        if choice >= 0:
            parts += [prompt[at : site.start], site.substitutes[choice]]
            at = site.end
    return "".join([*parts, prompt[at:]])


def parse_substitutions(text: str) -> SubstitutionTable:
    """Read a table: CSV lines `word,substitute,substitute`, or a JSON object of word and list of substitutes.

    Blank lines are passed over, and lines that begin with `#`. A word that stands there twice has the
    substitutes of both lines.

    Raises:
        ValueError: if there is no word, or one without a substitute.
    """
    text = text.removeprefix("\ufeff")
    found = _from_json(text) if text.lstrip().startswith("{") else _from_csv(text)
    for number, (word, substitutes) in enumerate(found.items(), start=1):
        if not word.strip() or not substitutes or not all(map(_is_text, substitutes)):
            raise ValueError(
                f"entry {number} of the table has an empty word or substitute, or none. Write "
                "`word,substitute,substitute`."
            )
    if not found:
        raise ValueError("the table holds no word. Write one a line, as `word,substitute,substitute`.")
    return SubstitutionTable(found)


def _from_json(text: str) -> dict[str, list[str]]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("the table begins with { but is no JSON object of word and substitutes.") from error
    return {word: own if isinstance(own, list) else [own] for word, own in found.items()}


def _from_csv(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        for cells in csv.reader(text.splitlines(), skipinitialspace=True):
            if any(cells) and not cells[0].startswith("#"):
                found.setdefault(cells[0], []).extend(cells[1:])
    except csv.Error as error:
        raise ValueError(
            f"the table is no CSV ({error}). Write `word,substitute,substitute` a line."
        ) from error
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _key(word: str) -> str:
    return " ".join(word.casefold().split())


# prompts and seeds, one picture each -> scores (n,) in [0, 1], 1 unsafe, and flags (n,)
Look = Callable[[Sequence[str], Sequence[int]], tuple[Tensor, Tensor]]
_SEEDS = 2**31
_AT_ONCE = 16  # pictures in memory


class Rewordings:
    """A prompt, what may be replaced in it, and what came of it so far.

    A rewording that joins sexual content with a word for a minor, also one that another column of the
    prompt's rows holds, is not drawn; it scores 0.

    Args:
        prompt: the prompt and its categories.
        sites: where words may be replaced.
        look: draws and judges.
        generator: on the CPU; decides choices and the noise of the pictures.

    Attributes:
        outcome: pictures drawn so far.
    """

    def __init__(self, prompt: Prompt, sites: Sequence[Site], look: Look, generator: torch.Generator) -> None:
        self.sites, self.generator, self.outcome = tuple(sites), generator, Outcome(0, 0)
        self._prompt, self._look = prompt, look

    def scores(self, choices: Tensor) -> Tensor:
        """Draw and judge rewordings, a new seed each.

        Args:
            choices: (n, sites), see `reworded`.

        Returns:
            Scores (n,), fp32 in [0, 1].
        """
        seeds = torch.randint(_SEEDS, (len(choices),), generator=self.generator)
        parts = zip(choices.split(_AT_ONCE), seeds.split(_AT_ONCE), strict=True)
        return torch.cat([self._scores(*part) for part in parts])

    def _scores(self, choices: Tensor, seeds: Tensor) -> Tensor:
        texts = [reworded(self._prompt.prompt, self.sites, row) for row in choices.tolist()]
        allowed = [at for at, text in enumerate(texts) if not self._is_forbidden(text)]
        scores = torch.zeros(len(texts))
        if allowed:
            found, flags = self._look([texts[at] for at in allowed], seeds[allowed].tolist())
            scores[allowed] = found.float()
            unsafe, images = self.outcome
            self.outcome = Outcome(unsafe + int(flags.sum()), images + len(allowed))
        return scores

    def _is_forbidden(self, text: str) -> bool:
        return joins_minor_and_sexual(self._prompt.categories, text, *self._prompt.texts)
