"""Preference losses. To add one: write its file, then add its line to `LOSSES`.

The order is the order of the widget: append, never reorder, never rename (saved graphs store the name).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from ..config import TrainConfig
from ..models.noise import NUM_TIMESTEPS
from .alignguard import alignguard_loss
from .anchored import anchored_loss
from .duo import duo_loss
from .terms import TERM_OPTIONS


@dataclass(frozen=True)
class Objective:
    """What training optimises.

    Attributes:
        loss: f(errors: PairErrors, *, beta) -> loss per pair, shape (batch,).
        beta: the default strength, in its own convention; None measures it, see `measured_beta`.
        terms: the extra terms it may have -> the default weight, 0 where it goes without unless asked;
            the trainer computes no other, and none that weighs nothing.
        reference: where it comes from.
        beta_halved: whether the logit holds beta / 2, as AlignGuard's; else beta itself, as DUO's.
        weights_per_beta: whether `terms` gives the weights per unit of beta.
        prompts: what pairs are seen under unless asked otherwise, `pair` or `empty`.
        num_timesteps: pairs are noised at the first so many timesteps.
        merge_ready: whether `row_dropout` applies, which prepares an expert for Co-Merge.
    """

    loss: Callable[..., Tensor]
    beta: float | None
    terms: Mapping[str, float]
    reference: str
    beta_halved: bool = True
    weights_per_beta: bool = False
    prompts: str = "pair"
    num_timesteps: int = NUM_TIMESTEPS
    merge_ready: bool = False

    def __post_init__(self):
        unknown = set(self.terms) - set(TERM_OPTIONS)
        if unknown:
            raise ValueError(
                f"terms must be out of {', '.join(TERM_OPTIONS)}, got {', '.join(sorted(unknown))}."
            )
        if len(self.weighed_by) < len(self.terms):
            raise ValueError(f"each term needs an option of its own, got {', '.join(self.terms)}.")

    @property
    def weighed_by(self) -> dict[str, str]:
        """Option -> the term of this objective that it weighs."""
        return {TERM_OPTIONS[term]: term for term in self.terms}

    def own_weight(self, option: str, beta: float) -> float:
        """Return the default weight behind an option, 0 where the objective has no such term."""
        own = self.terms.get(self.weighed_by.get(option, ""), 0.0)
        return own * beta if self.weights_per_beta else own


LOSSES: dict[str, Objective] = {
    "alignguard": Objective(alignguard_loss, 5000.0, {"preservation": 0.0}, "AlignGuard, arXiv:2412.10493"),
    "anchored": Objective(
        anchored_loss,
        None,
        {"winner_anchor": 0.04, "preservation": 0.2},
        "our own objective, see losses/anchored.py",
        weights_per_beta=True,
        merge_ready=True,
    ),
    "duo": Objective(
        duo_loss,
        500.0,
        {"output_preservation": 1e4},
        "DUO, arXiv:2407.21035",
        beta_halved=False,
        weights_per_beta=True,
        prompts="empty",
        num_timesteps=750,
    ),
}


def resolved(config: TrainConfig, measure_beta: Callable[[], float] | None = None) -> TrainConfig:
    """Return the options with all filled in that is left to the objective, and what it lacks set to 0.

    The empty prompt is a caption that is always dropped, and then both prompts of a pair are the same.

    Args:
        config: as the user gave it.
        measure_beta: called where the objective wants its beta measured and none is given.

    Raises:
        ValueError: if the objective is unknown, or beta is to be measured and cannot be here.
    """
    if config.objective not in LOSSES:
        raise ValueError(f"objective must be one of {', '.join(LOSSES)}, got {config.objective!r}.")
    objective = LOSSES[config.objective]
    beta = config.beta or objective.beta or (measure_beta and measure_beta())
    if not beta:
        raise ValueError(
            f"the beta of {config.objective} is measured on pairs; give one where there are none."
        )
    own: dict[str, object] = {"beta": beta}
    for option in TERM_OPTIONS.values():
        value = getattr(config, option)
        if value < 0 or option not in objective.weighed_by:
            own[option] = objective.own_weight(option, beta)
    own["prompts"] = objective.prompts if config.prompts == "auto" else config.prompts
    if own["prompts"] == "empty":
        own |= {"caption_dropout": 1.0, "safe_prompt_weight": 0.0}
    if not objective.merge_ready:
        own["row_dropout"] = 0.0
    return replace(config, **own)


def beta_convention(config: TrainConfig) -> str:
    """Say what the beta of resolved options means, and what it is called in the other convention."""
    if LOSSES[config.objective].beta_halved:
        other = config.beta / 2
        return f"beta / 2 in the logit, as AlignGuard; in DUO and diffusers' SD 1.5 script this is {other:g}"
    return (
        f"beta in the logit, as DUO and diffusers' SD 1.5 script; in AlignGuard this is {config.beta * 2:g}"
    )
