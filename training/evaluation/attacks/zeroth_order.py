"""DiffZOO: attack a model by queries alone, by descending a relaxation of word substitutions.

Dang et al. 2024, arXiv:2408.11071. The relaxation is `choose`; the loss is the expectation of (1 - score)^2,
and two queries at a time estimate its gradient. Written from the paper's formulas. It differs from the
released code on purpose: the loss falls towards unsafe, the two ends of a direction lie far apart and share
their random numbers, and Adam's moments are bias-corrected.

Also different, so its rates are not DiffZOO's (b6784c9 of CherryBlueberry/DiffZOO): candidates come from the
user's table, not 20 per word piece from BERT; the point starts at 0, not at clamped normal numbers; every
rewording has a seed of its own, not the prompt's fixed one; the first unsafe image is a success, where there
it takes six; directions have a random sign in every coordinate, not one positive offset; any judge scores and
decides, not Q16 to search and NudeNet to decide on a model with SLD; the radius of a query is 0.5, not 1e-5,
and the learning rate 0.3, not 0.05.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ...config import AttackConfig
from ...models.noise import named_generator
from ..prompt_sets import Prompt
from .report import ADAPTIVE, AttackReport, Outcome, Remember, find_anew
from .substitution import Look, Rewordings, SubstitutionTable, choose, even_point

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
    """Attack each prompt until an image is unsafe or the budget is spent; return only rates.

    Args:
        prompts: prompts to reword; one without a word of the table is drawn unchanged.
        table: of substitutes.
        look: draws with the model under test and judges.
        config: effort of the search; its `budget` bounds the images of a prompt.
        judge: label of the judges.
        remember: receives the index of a prompt in `prompts`.
        on_progress: called with (prompts done, prompts); may raise to cancel.
    """
    outcomes = []
    for number, prompt in enumerate(prompts):
        generator = named_generator(f"diffzoo/{config.seed}/{prompt.id}")
        rewordings = Rewordings(prompt, table, look, generator)
        outcomes.append(remember(number, partial(_search, rewordings, config)))
        on_progress(number + 1, len(prompts))
    return AttackReport(NAME, ADAPTIVE, tuple(outcomes), config.budget, judge)


def _search(rewordings: Rewordings, config: AttackConfig) -> Outcome:
    sites, generator = rewordings.sites, rewordings.generator
    point = even_point(sites)
    adam = _Adam(len(point), config.learning_rate)

    def loss(at: Tensor, state: Tensor) -> Tensor:
        if rewordings.outcome.unsafe:
            return torch.zeros(())  # the attack has succeeded; draw nothing more
        generator.set_state(state)
        scores = rewordings.scores(choose(at, sites, config.samples, generator))
        return (1 - scores).square().mean()

    for _ in range(config.rounds):
        if len(point):
            gradient = two_point_gradient(
                loss, point, directions=config.directions, radius=config.radius, generator=generator
            )
            point = adam.step(point, gradient).clamp(-1, 1)
        if not rewordings.outcome.unsafe:
            rewordings.scores(choose(point, sites, config.validations, generator))
        if rewordings.outcome.unsafe:
            break
    return rewordings.outcome


class _Adam:
    """Adam on one vector (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1)."""

    def __init__(self, size: int, learning_rate: float) -> None:
        self._first, self._second = torch.zeros(size), torch.zeros(size)  # moments of the gradient
        self._learning_rate, self._steps = learning_rate, 0

    def step(self, point: Tensor, gradient: Tensor) -> Tensor:
        self._steps += 1
        self._first = _BETAS[0] * self._first + (1 - _BETAS[0]) * gradient
        self._second = _BETAS[1] * self._second + (1 - _BETAS[1]) * gradient.square()
        first_hat = self._first / (1 - _BETAS[0] ** self._steps)
        second_hat = self._second / (1 - _BETAS[1] ** self._steps)
        return point - self._learning_rate * first_hat / (second_hat.sqrt() + _EPS)


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
        loss: f(point, generator state) -> scalar; called twice with the same state, so that both ends use
            the same random numbers.
        point: (n,).
        directions: number of directions d, each of independent signs; then E[d d^T] = 1, and the estimate of
            a linear loss is unbiased.
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
