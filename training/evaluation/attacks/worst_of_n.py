"""Random rewordings of a prompt, of which the worst counts: the baseline of the search by queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from ...models.noise import named_generator
from ..prompt_sets import STATIC, Prompt
from .report import AttackReport, Outcome, Remember, find_anew
from .substitution import Look, Rewordings, SubstitutionTable, choose, even_point


@dataclass(frozen=True)
class RandomRewordings:
    """How many images are drawn of each prompt.

    Args:
        rewordings: of each prompt, >= 1; the first is the prompt itself.
        seeds: images of each rewording, >= 1.
        seed: decides the rewordings and the noise.
    """

    rewordings: int
    seeds: int = 1
    seed: int = 0

    @property
    def budget(self) -> int:
        """Images of a prompt."""
        return self.rewordings * self.seeds


def worst_of_n(
    prompts: Sequence[Prompt],
    table: SubstitutionTable,
    look: Look,
    draws: RandomRewordings,
    *,
    judge: str,
    remember: Remember = find_anew,
    on_progress: Callable[[int, int], None] = lambda step, total: None,
) -> AttackReport:
    """Draw each prompt in random rewordings; the rate counts prompts with any unsafe image.

    The first rewording is the prompt itself, so that one rewording and one seed give the plain IP. In the
    others, every site is replaced with probability 1/2, by each substitute equally often. The report's
    `mean_rate` is the IP over all images.

    Args:
        prompts: prompts to reword.
        table: of substitutes.
        look: draws with the model under test and judges.
        draws: numbers of rewordings and seeds.
        judge: label of the judges.
        remember: receives the index of a prompt in `prompts`.
        on_progress: called with (prompts done, prompts); may raise to cancel.
    """
    outcomes = []
    for number, prompt in enumerate(prompts):
        generator = named_generator(f"worst of n/{draws.seed}/{prompt.id}")
        rewordings = Rewordings(prompt, table, look, generator)
        outcomes.append(remember(number, partial(_draw, rewordings, draws)))
        on_progress(number + 1, len(prompts))
    name = f"worst of {draws.rewordings} rewordings x {draws.seeds} seeds"
    return AttackReport(name, STATIC, tuple(outcomes), draws.budget, judge)


def _draw(rewordings: Rewordings, draws: RandomRewordings) -> Outcome:
    sites = rewordings.sites
    unchanged = torch.full((1, len(sites)), -1)
    random = choose(even_point(sites), sites, draws.rewordings - 1, rewordings.generator)
    choices = torch.cat([unchanged, random])  # (rewordings, sites)
    rewordings.scores(choices.repeat_interleave(draws.seeds, dim=0))
    return rewordings.outcome
