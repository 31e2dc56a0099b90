"""Rewordings of a prompt: a table of substitutes, where it applies in a prompt, and drawing the result."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...rules.hard_rule import joins_minor_and_sexual
from ...system.tables import csv_rows
from ..prompt_sets import Prompt
from .report import Outcome

# prompts and seeds, one image each -> scores (n,) in [0, 1], 1 is unsafe, and flags (n,)
Look = Callable[[Sequence[str], Sequence[int]], tuple[Tensor, Tensor]]
_SEEDS = 2**31
_AT_ONCE = 16  # images in memory


class Site(NamedTuple):
    """A place in a prompt that the table has substitutes for; start and end count characters."""

    start: int
    end: int
    substitutes: tuple[str, ...]


class SubstitutionTable:
    """Finds the words of a table in prompts: longest first, whole words only, in any case.

    Args:
        substitutes: word or phrase -> its substitutes, at least one each, none of them blank.
    """

    def __init__(self, substitutes: Mapping[str, Sequence[str]]) -> None:
        texts: dict[str, list[str]] = {}
        for word, choices in substitutes.items():
            texts.setdefault(_key(word), []).extend(text.strip() for text in choices)
        longest_first = sorted(texts, key=lambda word: (-len(word), word))
        grouped = "|".join("({})".format(r"\s+".join(map(re.escape, word.split()))) for word in longest_first)
        self._pattern = re.compile(rf"(?<!\w)(?:{grouped})(?!\w)", re.IGNORECASE)
        self._in_order = [tuple(texts[word]) for word in longest_first]

    def sites(self, prompt: str) -> tuple[Site, ...]:
        """Return where words of the table stand in a prompt, from left to right, without overlaps."""
        matches = self._pattern.finditer(prompt)
        # looked up by the number of the regex group: as a key, `KİLL` would differ from `kill`
        return tuple(Site(*match.span(), self._in_order[match.lastindex - 1]) for match in matches)


def parse_substitutions(text: str) -> SubstitutionTable:
    """Parse CSV lines `word,substitute,substitute`, or a JSON object that maps words to substitutes.

    Blank lines and lines that begin with `#` are skipped. A word on two lines gets the substitutes of both.

    Raises:
        ValueError: if the table is malformed or empty, or if a word has no substitute.
    """
    text = text.removeprefix("\ufeff")
    entries = _from_json(text) if text.lstrip().startswith("{") else _from_csv(text)
    for number, (word, substitutes) in enumerate(entries.items(), start=1):
        if not word.strip() or not substitutes or not all(map(_is_text, substitutes)):
            raise ValueError(
                f"entry {number} of the table lacks a word or a substitute, or one of them is empty. Write "
                "`word,substitute,substitute`."
            )
    if not entries:
        raise ValueError("the table is empty. Write one word per line, as `word,substitute,substitute`.")
    return SubstitutionTable(entries)


def _from_json(text: str) -> dict[str, list[str]]:
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            "the table begins with { but is not a JSON object that maps words to substitutes."
        ) from error
    return {word: choices if isinstance(choices, list) else [choices] for word, choices in table.items()}


def _from_csv(text: str) -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for _, cells in csv_rows(text, "the table", skip_space=True):
        if not cells[0].startswith("#"):
            table.setdefault(cells[0], []).extend(cells[1:])
    return table


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _key(word: str) -> str:
    return " ".join(word.casefold().split())


def reworded(prompt: str, sites: Sequence[Site], choices: Sequence[int]) -> str:
    """Return a prompt with some of its sites replaced; nothing outside them changes.

    Args:
        prompt: the text.
        sites: of the prompt.
        choices: one per site: the number of the substitute; -1 keeps the word.
    """
    parts, at = [], 0
    for site, choice in zip(sites, choices, strict=True):
        if choice >= 0:
            parts += [prompt[at : site.start], site.substitutes[choice]]
            at = site.end
    return "".join([*parts, prompt[at:]])


def even_point(sites: Sequence[Site]) -> Tensor:
    """Return the point of DiffZOO's relaxation at which every choice is equally likely: all z and u are 0."""
    return torch.zeros(len(sites) + sum(len(site.substitutes) for site in sites))


def choose(point: Tensor, sites: Sequence[Site], count: int, generator: torch.Generator) -> Tensor:
    """Sample rewordings from DiffZOO's relaxation (Dang et al. 2024, arXiv:2408.11071).

    A site is replaced with probability (z + 1) / 2, by a substitute drawn in proportion to (u + 1) / 2. If
    every u of a site is -1, its substitutes are equally likely.

    Args:
        point: in [-1, 1]: z of every site, then u of every substitute of the first site, of the second, and
            so on.
        sites: of the prompt.
        count: number of rewordings.
        generator: on the CPU.

    Returns:
        Choices, (count, sites), as `reworded` takes them.
    """
    chances = (point.clamp(-1, 1) + 1) / 2
    z, u = chances[: len(sites)], chances[len(sites) :].split([len(site.substitutes) for site in sites])
    replaced, picks = torch.rand(2, count, len(sites), generator=generator)
    columns = []
    for at, weights in enumerate(u):
        weights = weights if weights.sum() > 0 else torch.ones_like(weights)
        ends = (weights / weights.sum()).cumsum(0)[:-1].contiguous()
        picked = torch.searchsorted(ends, picks[:, at].contiguous(), right=True)
        columns.append(torch.where(replaced[:, at] < z[at], picked, -1))
    return torch.stack(columns, dim=1) if columns else torch.empty(count, 0, dtype=torch.long)


class Rewordings:
    """Draws and judges rewordings of one prompt, and counts the outcome.

    A rewording that joins sexual content with a word for a minor, by itself or with another column of the
    prompt's row, is not drawn; it scores 0.

    Args:
        prompt: the prompt and its categories.
        table: of substitutes.
        look: draws and judges.
        generator: on the CPU; decides the choices and the noise of the images.

    Attributes:
        sites: where words may be replaced.
        outcome: counts of the images drawn so far.
    """

    def __init__(
        self, prompt: Prompt, table: SubstitutionTable, look: Look, generator: torch.Generator
    ) -> None:
        self.sites, self.generator, self.outcome = table.sites(prompt.prompt), generator, Outcome(0, 0)
        self._prompt, self._look = prompt, look

    def scores(self, choices: Tensor) -> Tensor:
        """Draw and judge rewordings, each with a new seed.

        Args:
            choices: (n, sites), as `choose` returns them.

        Returns:
            Scores (n,), fp32 in [0, 1].
        """
        seeds = torch.randint(_SEEDS, (len(choices),), generator=self.generator)
        chunks = zip(choices.split(_AT_ONCE), seeds.split(_AT_ONCE), strict=True)
        return torch.cat([self._scores(*chunk) for chunk in chunks])

    def _scores(self, choices: Tensor, seeds: Tensor) -> Tensor:
        texts = [reworded(self._prompt.prompt, self.sites, row) for row in choices.tolist()]
        allowed = [at for at, text in enumerate(texts) if not self._is_forbidden(text)]
        scores = torch.zeros(len(texts))
        if allowed:
            allowed_scores, flags = self._look([texts[at] for at in allowed], seeds[allowed].tolist())
            scores[allowed] = allowed_scores.float()
            unsafe, images = self.outcome
            self.outcome = Outcome(unsafe + int(flags.sum()), images + len(allowed))
        return scores

    def _is_forbidden(self, text: str) -> bool:
        return joins_minor_and_sexual(self._prompt.categories, text, *self._prompt.texts)
