"""What a benchmark measures, and on what: the models, and the pictures that each of them draws."""

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
Key = tuple[str, str, int]  # of a row: key of the model, id of the prompt, number of the picture


class Entrant(NamedTuple):
    """A model that is measured.

    Attributes:
        name: unique name for people.
        key: identifies the weights, so that rows stay valid when a model is renamed; `BASE` for the base.
        opened: returns a context manager that yields the function that draws with this model.
        alone: key of the same expert without the LoRAs beside it; None if there are no LoRAs beside it.
    """

    name: str
    key: str
    opened: Callable[[], AbstractContextManager[DrawOne]]
    alone: str | None = None


class Task(NamedTuple):
    """One picture that every model draws.

    Attributes:
        prompt: the prompt, with the categories from all sets that contain it.
        sets: names of these sets.
        number: number of the picture among those of the prompt, from 0.
        seed: seed of the noise.
    """

    prompt: Prompt
    sets: tuple[str, ...]
    number: int
    seed: int

    @property
    def is_benign(self) -> bool:
        """Whether the prompt is neutral, so that the picture should stay as the base draws it."""
        return not self.prompt.categories

    @property
    def prompt_key(self) -> str:
        """Identifies the text of the prompt: pictures of one text are not independent samples."""
        return prompt_key(self.prompt.prompt)

    def row_key(self, model_key: str) -> Key:
        """Return the key of the row that holds a model's picture of this task."""
        return model_key, self.prompt.id, self.number


def plan_tasks(sets: Sequence[PromptSet], *, per_prompt: int, seed: int) -> list[Task]:
    """Return the pictures to draw: those of one prompt together, a prompt of several sets only once.

    Picture n of a prompt has the seed of its row plus n. If the row names no seed, the seed is derived from
    `seed` and the prompt, so that adding prompts does not change the pictures of the others. No model draws
    the same prompt with the same seed twice. Prompts that the hard rule forbids only once the sets are
    joined are left out with a warning.

    Args:
        sets: at least one prompt set.
        per_prompt: pictures of every prompt, >= 1.
        seed: seed for prompts whose row names none.

    Raises:
        ValueError: if there is no set, or no prompt remains.
    """
    if not sets:
        raise ValueError("there is nothing to measure on. Give at least one prompt set.")
    prompts, set_names = _joined(sets)
    forbidden = _forbidden(sets, prompts.values())
    tasks: dict[tuple[str, int], Task] = {}
    for prompt in prompts.values():
        text_key = prompt_key(prompt.prompt)
        for number in range(per_prompt) if text_key not in forbidden else ():
            task_seed = (_first_seed(prompt, seed) + number) % (SEED_MAX + 1)
            task = Task(prompt, set_names[prompt.id], number, task_seed)
            tasks.setdefault((text_key, task_seed), task)
    if not tasks:
        raise ValueError("the rule on minors forbids every prompt once the sets are joined. Give other sets.")
    return list(tasks.values())


def expert_key(content_hash: str, strength: float) -> str:
    """Return the key of an expert at a strength, see `Entrant.key`."""
    return f"{content_hash} at {strength:g}"


def stacked(
    parts: Sequence[tuple[str, str]], opened: Callable[[], AbstractContextManager[DrawOne]]
) -> Entrant:
    """Return one model made of an expert and the LoRAs beside it.

    Args:
        parts: (name, key) of the expert, then of each LoRA.
        opened: opens the model that draws with all of them, see `Entrant.opened`.
    """
    names, keys = zip(*parts, strict=True)
    return Entrant(" + ".join(names), " + ".join(keys), opened, keys[0] if len(keys) > 1 else None)


def check_entrants(entrants: Sequence[Entrant]) -> None:
    """Check that the base is first and that no two models share a key or a name.

    Raises:
        ValueError: if one of these does not hold; see `with_unique_names` for equal names.
    """
    if not entrants or entrants[0].key != BASE:
        raise ValueError("the first model must be the base, which the others are compared with.")
    for first, second in itertools.combinations(entrants, 2):
        if first.key == second.key:
            raise ValueError(
                f"{first.name} and {second.name} are the same weights at the same strength. Remove one of "
                "them."
            )
        if first.name == second.name:
            raise ValueError(f"two models have the same name, {first.name}. Give them different names.")


def with_unique_names(entrants: Iterable[Entrant]) -> list[Entrant]:
    """Return the models with unique names: a name that is taken gets a number, as in `expert (2)`."""
    renamed: dict[str, Entrant] = {}
    for entrant in entrants:
        numbered = (f"{entrant.name} ({number})" for number in itertools.count(2))
        name = next(name for name in itertools.chain([entrant.name], numbered) if name not in renamed)
        renamed[name] = entrant._replace(name=name)
    return list(renamed.values())


def _joined(sets: Sequence[PromptSet]) -> tuple[dict[str, Prompt], dict[str, tuple[str, ...]]]:
    """Return, by id, each prompt with the categories from all sets, and the names of its sets."""
    prompts: dict[str, Prompt] = {}
    set_names: dict[str, dict[str, None]] = {}
    for prompt_set in sets:
        for prompt in prompt_set.prompts:
            earlier = prompts.get(prompt.id, prompt)
            categories = tuple(dict.fromkeys((*earlier.categories, *prompt.categories)))
            prompts[prompt.id] = earlier._replace(categories=categories)
            set_names.setdefault(prompt.id, {})[prompt_set.name] = None
    return prompts, {prompt_id: tuple(names) for prompt_id, names in set_names.items()}


def _forbidden(sets: Sequence[PromptSet], prompts: Iterable[Prompt]) -> set[str]:
    """Return the keys of prompts that the hard rule forbids once the texts of several sets are joined."""
    texts_by_set: dict[str, list[tuple[str, ...]]] = {}
    for prompt_set in sets:
        set_texts = {prompt_key(prompt.prompt): prompt.texts for prompt in prompt_set.prompts}
        for key, texts in set_texts.items():
            texts_by_set.setdefault(key, []).append(texts)
    forbidden = set()
    for prompt in prompts:
        key = prompt_key(prompt.prompt)
        texts = [text for texts in texts_by_set[key] for text in texts]
        if len(texts_by_set[key]) > 1 and joins_minor_and_sexual(prompt.categories, *texts):
            forbidden.add(key)
    if forbidden:
        log.warning(
            "%d prompts are left out: the rule on minors forbids them once the sets are joined.",
            len(forbidden),
        )
    return forbidden


def _first_seed(prompt: Prompt, seed: int) -> int:
    if prompt.seed is not None:
        return prompt.seed
    return int.from_bytes(hashlib.sha256(f"{seed}/{prompt.id}".encode()).digest()[:6], "big")
