"""DiffZOO: attack a model by queries alone, descending a relaxation of word substitutions.

Dang et al. 2024, arXiv:2408.11071. Every site of the prompt has a z in [-1, 1], which replaces it with
probability (z + 1) / 2, and a u in [-1, 1] per substitute, which is chosen in proportion to (u + 1) / 2. The
loss is the expectation of (1 - score)^2. Its gradient is estimated by two queries at a time. Written from
the paper's formulas; differing from the released code on purpose: the loss falls towards unsafe, the two
ends of a direction lie far apart and share their random numbers, and Adam's moments are corrected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ...config import AttackConfig
from ...models.noise import named_generator
from ..prompt_sets import STATIC, Prompt
from .report import ADAPTIVE, AttackReport, Outcome, Remember, find_anew
from .substitution import Look, Rewordings, Site, SubstitutionTable

NAME = "DiffZOO's search over word substitutions"
_BETAS, _EPS = (0.9, 0.999), 1e-8  # DiffZOO's


def zeroth_order_attack(
    prompts: Sequence[Prompt],
    table: SubstitutionTable,
    look: Look,
    config: AttackConfig,
    *,
    judge: str,
    remember: Remember = find_anew,
    on_progress: Callable[[int, int], None] = lambda step, total: None,
) -> AttackReport:
    """Attack every prompt, each until a picture is unsafe or the budget is spent; only rates come back.

    Args:
        prompts: what to attack with; one without a word of the table is drawn as it is.
        table: what may be substituted.
        look: draws with the model under test and judges.
        config: how hard to search; its `budget` is the most pictures of a prompt.
        judge: label of who judges.
        remember: of a prompt by its place in `prompts`, see `Remember`.
        on_progress: prompts done and in all; may raise to cancel.
    """
    outcomes = []
    for number, prompt in enumerate(prompts):
        generator = named_generator(f"diffzoo/{config.seed}/{prompt.id}")
        rewordings = Rewordings(prompt, table.sites(prompt.prompt), look, generator)
        outcomes.append(remember(number, partial(_search, rewordings, config)))
        on_progress(number + 1, len(prompts))
    return AttackReport(NAME, ADAPTIVE, tuple(outcomes), config.budget, judge)


def two_point_gradient(
    loss: Callable[[Tensor, Tensor], Tensor],
    point: Tensor,
    *,
    directions: int,
    radius: float,
    generator: torch.Generator,
) -> Tensor:
    """Estimate a gradient from values: mean over d of (L(x + r d) - L(x - r d)) / (2 r) * d.

    Args:
        loss: f(point, generator state) -> scalar; called twice with one state, so that both ends see the
            same random numbers.
        point: (n,).
        directions: number of d, each of independent signs; then E[d d^T] = 1, and the estimate of a linear
            loss is unbiased.
        radius: r > 0.
        generator: on the CPU.

    Returns:
        Shape (n,), fp32.
    """
    total = torch.zeros_like(point)
    for _ in range(directions):
        signs = 2.0 * torch.randint(2, point.shape, generator=generator) - 1
        state = generator.get_state()
        above = loss(point + radius * signs, state)
        total += (above - loss(point - radius * signs, state)) / (2 * radius) * signs
    return total / directions


def choose(point: Tensor, sites: Sequence[Site], count: int, generator: torch.Generator) -> Tensor:
    """Draw rewordings from the relaxation.

    Args:
        point: z of every site, then u of every substitute of the first site, of the second, and so on.
        sites: of the prompt.
        count: how many.
        generator: on the CPU.

    Returns:
        Choices, (count, sites), see `reworded`.
    """
    chances = (point.clamp(-1, 1) + 1) / 2
    z, u = chances[: len(sites)], chances[len(sites) :].split([len(site.substitutes) for site in sites])
    replaced, which = torch.rand(2, count, len(sites), generator=generator)
    columns = []
    for at, weights in enumerate(u):
        weights = weights if weights.sum() > 0 else torch.ones_like(weights)
        ends = (weights / weights.sum()).cumsum(0)[:-1].contiguous()
        picked = torch.searchsorted(ends, which[:, at].contiguous(), right=True)
        columns.append(torch.where(replaced[:, at] < z[at], picked, -1))
    return torch.stack(columns, dim=1) if columns else torch.empty(count, 0, dtype=torch.long)


def _search(rewordings: Rewordings, config: AttackConfig) -> Outcome:
    sites, generator = rewordings.sites, rewordings.generator
    point = torch.zeros(len(sites) + sum(len(site.substitutes) for site in sites))  # each choice even
    first, second = torch.zeros_like(point), torch.zeros_like(point)

    def loss(at: Tensor, state: Tensor) -> Tensor:
        if rewordings.outcome.unsafe:
            return torch.zeros(())  # the attack has won; nothing more is drawn
        generator.set_state(state)
        scores = rewordings.scores(choose(at, sites, config.samples, generator))
        return (1 - scores).square().mean()

    for step in range(1, config.rounds + 1):
        if len(point):
            gradient = two_point_gradient(
                loss, point, directions=config.directions, radius=config.radius, generator=generator
            )
            first = _BETAS[0] * first + (1 - _BETAS[0]) * gradient
            second = _BETAS[1] * second + (1 - _BETAS[1]) * gradient.square()
            corrected = first / (1 - _BETAS[0] ** step), second / (1 - _BETAS[1] ** step)
            point = (point - config.learning_rate * corrected[0] / (corrected[1].sqrt() + _EPS)).clamp(-1, 1)
        if not rewordings.outcome.unsafe:
            rewordings.scores(choose(point, sites, config.validations, generator))
        if rewordings.outcome.unsafe:
            break
    return rewordings.outcome


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
