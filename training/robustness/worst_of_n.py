"""The baseline of every search: some random rewordings, some seeds each, and the worst of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from ..evaluation.prompt_sets import STATIC, Prompt
from ..models.noise import named_generator
from .attack_report import AttackReport, Outcome, Remember, find_anew
from .rewordings import Look, Rewordings
from .substitution import SubstitutionTable
from .zeroth_order import choose


def worst_of_n(
    prompts: Sequence[Prompt],
    table: SubstitutionTable,
    look: Look,
    *,
    rewordings: int,
    seeds: int = 1,
    seed: int = 0,
    judge: str,
    remember: Remember = find_anew,
    on_progress: Callable[[int, int], None] = lambda step, total: None,
) -> AttackReport:
    """Draw every prompt in several rewordings and seeds; the rate counts prompts with any unsafe picture.

    The first rewording is the prompt itself, so that one rewording and one seed give the plain IP. In the
    others every site is replaced with chance 1/2, each substitute alike. `mean_rate` is the IP over all.

    Args:
        prompts: what to draw.
        table: what may be substituted.
        look: draws with the model under test and judges.
        rewordings: of each prompt, >= 1.
        seeds: pictures of each rewording, >= 1.
        seed: decides the rewordings and the noise.
        judge: label of who judges.
        remember: of a prompt by its place in `prompts`, see `Remember`.
        on_progress: prompts done and in all; may raise to cancel.
    """
    outcomes = []
    for number, prompt in enumerate(prompts):
        generator = named_generator(f"worst of n/{seed}/{prompt.id}")
        own = Rewordings(prompt, table.sites(prompt.prompt), look, generator)
        outcomes.append(remember(number, partial(_try, own, rewordings, seeds)))
        on_progress(number + 1, len(prompts))
    name = f"worst of {rewordings} rewordings x {seeds} seeds"
    return AttackReport(name, STATIC, tuple(outcomes), rewordings * seeds, judge)


def _try(own: Rewordings, rewordings: int, seeds: int) -> Outcome:
    even = torch.zeros(len(own.sites) + sum(len(site.substitutes) for site in own.sites))
    plain = torch.full((1, len(own.sites)), -1)
    choices = torch.cat([plain, choose(even, own.sites, rewordings - 1, own.generator)])
    own.scores(choices.repeat_interleave(seeds, dim=0))
    return own.outcome
