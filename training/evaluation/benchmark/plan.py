"""What is measured on what: the models, and every picture each of them has to draw."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from torch import Tensor

from ...config.option import SEED_MAX
from ...pairs.rows import prompt_key
from ...rules.hard_rule import joins_minor_and_sexual
from ..prompt_sets import Prompt, PromptSet

log = logging.getLogger(__name__)
BASE = "base"
DrawOne = Callable[..., Tensor]  # f(prompt, *, seed) -> one picture, (1, 3, h, w) in [0, 1]


class Entrant(NamedTuple):
    """A model that is measured.

    Attributes:
        name: for people, unique.
        key: names its weights, so that rows stay its own whatever it is called; `BASE` for the base.
        opened: gives the function that draws with it, while the context lasts.
        alone: key of the same expert without the LoRAs that are beside it here; None: nothing is.
    """

    name: str
    key: str
    opened: Callable[[], AbstractContextManager[DrawOne]]
    alone: str | None = None


class Task(NamedTuple):
    """One picture that every model draws.

    Attributes:
        prompt: of all sets it is in, with the categories of all.
        sets: their names.
        number: of the picture among those of the prompt, from 0.
        seed: of its noise.
    """

    prompt: Prompt
    sets: tuple[str, ...]
    number: int
    seed: int

    @property
    def is_benign(self) -> bool:
        """Whether the picture must stay as the base draws it."""
        return not self.prompt.categories


def plan_tasks(sets: Sequence[PromptSet], *, per_prompt: int, seed: int) -> list[Task]:
    """Return the pictures to draw: all of a prompt together, a prompt of several sets once.

    Picture n of a prompt has the seed of its row plus n. A row without one takes a number made of `seed`
    and its prompt, so that adding prompts changes nothing for the others.

    No model draws the same prompt with the same seed twice. What the hard rule forbids only in several sets
    together is left out, with a warning.

    Raises:
        ValueError: if there is no set, or nothing is left of them.
    """
    if not sets:
        raise ValueError("there is nothing to measure on. Give at least one prompt set.")
    prompts: dict[str, Prompt] = {}
    named: dict[str, dict[str, None]] = {}
    for found in sets:
        for prompt in found.prompts:
            known = prompts.get(prompt.id, prompt)
            both = dict.fromkeys((*known.categories, *prompt.categories))
            prompts[prompt.id] = known._replace(categories=tuple(both))
            named.setdefault(prompt.id, {})[found.name] = None
    forbidden = _forbidden(sets, prompts.values())
    tasks: dict[tuple[str, int], Task] = {}
    for prompt in prompts.values():
        for number in range(per_prompt) if prompt_key(prompt.prompt) not in forbidden else ():
            at = (_seed(prompt, seed) + number) % (SEED_MAX + 1)
            tasks.setdefault(
                (prompt_key(prompt.prompt), at), Task(prompt, tuple(named[prompt.id]), number, at)
            )
    if not tasks:
        raise ValueError("the rule on minors forbids every prompt once the sets are joined. Give other sets.")
    return list(tasks.values())


def expert_key(content_hash: str, strength: float) -> str:
    """Return what names an expert at a strength, see `Entrant.key`."""
    return f"{content_hash} at {strength:g}"


def stacked(
    parts: Sequence[tuple[str, str]], opened: Callable[[], AbstractContextManager[DrawOne]]
) -> Entrant:
    """Return an expert and the LoRAs beside it as one model.

    Args:
        parts: name and key of the expert, then of each LoRA; see `Entrant`, as for `opened`.
        opened: draws with all of them.
    """
    names, keys = zip(*parts, strict=True)
    return Entrant(" + ".join(names), " + ".join(keys), opened, keys[0] if len(keys) > 1 else None)


def check_entrants(entrants: Sequence[Entrant]) -> None:
    """Refuse models that cannot be told apart.

    Raises:
        ValueError: if the first is not the base, two are of one key, or of one name, see `told_apart`.
    """
    if not entrants or entrants[0].key != BASE:
        raise ValueError("the first model must be the base that the others are compared with.")
    for at, entrant in enumerate(entrants):
        for other in entrants[:at]:
            if entrant.key == other.key:
                raise ValueError(
                    f"{other.name} and {entrant.name} are the same weights at the same strength. Leave one "
                    "of them out."
                )
            if entrant.name == other.name:
                raise ValueError(f"two models have the same name, {entrant.name}. Give them different ones.")


def told_apart(entrants: Iterable[Entrant]) -> list[Entrant]:
    """Return the models with a name of its own each: one that is taken is numbered, as in `expert (2)`."""
    found: dict[str, Entrant] = {}
    for entrant in entrants:
        numbered = (f"{entrant.name} ({number})" for number in itertools.count(2))
        name = next(each for each in itertools.chain([entrant.name], numbered) if each not in found)
        found[name] = entrant._replace(name=name)
    return list(found.values())


def _forbidden(sets: Sequence[PromptSet], prompts: Iterable[Prompt]) -> set[str]:
    """Return the keys of prompts that stand in several sets and are forbidden with all that these say."""
    said: dict[str, list[tuple[str, ...]]] = {}
    for found in sets:
        each = {prompt_key(prompt.prompt): prompt.texts for prompt in found.prompts}
        for key, texts in each.items():
            said.setdefault(key, []).append(texts)
    found = {
        key
        for prompt in prompts
        if len(lots := said[key := prompt_key(prompt.prompt)]) > 1
        and joins_minor_and_sexual(prompt.categories, *(text for texts in lots for text in texts))
    }
    if found:
        log.warning(
            "%d prompts are left out: the rule on minors forbids what the sets together say.", len(found)
        )
    return found


def _seed(prompt: Prompt, seed: int) -> int:
    if prompt.seed is not None:
        return prompt.seed
    return int.from_bytes(hashlib.sha256(f"{seed}/{prompt.id}".encode()).digest()[:6], "big")
