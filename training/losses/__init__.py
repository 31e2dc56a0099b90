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
from .composite import composite_loss
from .duo import duo_loss
from .terms import TERM_OPTIONS


@dataclass(frozen=True)
class Objective:
    """What training optimises.

    Attributes:
        loss: f(errors: PairErrors, *, beta) -> loss per pair, shape (batch,); it also takes the `extras`.
        beta: the default strength, in the objective's own convention; None: it is measured, see
            `measured_beta`.
        terms: the extra terms that the objective may have -> their default weight; 0: the term is used only
            if the user asks for it. The trainer computes no other terms, and none of weight 0.
        reference: the publication.
        beta_halved: whether the logit has beta / 2, as in AlignGuard; otherwise it has beta, as in DUO.
        weights_per_beta: whether the weights in `terms` are per unit of beta.
        prompts: the prompts of the pairs unless the user sets them, `pair` or `empty`.
        safe_prompt_weight: how much the pairs count under their safe prompts unless the user sets it.
        num_timesteps: pairs are noised at the first `num_timesteps` timesteps.
        extras: what else the loss takes: `focus`, an option, and `labels`, the probability that each winner
            is better.
        relabels: whether pairs are relabelled by their costs unless the user chooses another pair_weighting.
        merge_ready: whether `row_dropout` applies, which prepares an expert for Co-Merge.

    Raises:
        ValueError: if a term is unknown, or two terms share one option.
    """

    loss: Callable[..., Tensor]
    beta: float | None
    terms: Mapping[str, float]
    reference: str
    beta_halved: bool = True
    weights_per_beta: bool = False
    prompts: str = "pair"
    safe_prompt_weight: float = 1.0
    num_timesteps: int = NUM_TIMESTEPS
    merge_ready: bool = False
    extras: tuple[str, ...] = ()
    relabels: bool = False

    def __post_init__(self):
        unknown = set(self.terms) - set(TERM_OPTIONS)
        if unknown:
            raise ValueError(
                f"terms must be among {', '.join(TERM_OPTIONS)}, got {', '.join(sorted(unknown))}."
            )
        if len(self.weighed_by) < len(self.terms):
            raise ValueError(f"every term needs its own option, got {', '.join(self.terms)}.")

    @property
    def weighed_by(self) -> dict[str, str]:
        """Option -> the term of this objective that it weighs."""
        return {TERM_OPTIONS[term]: term for term in self.terms}

    @property
    def keeps_pure_noise(self) -> bool:
        """Whether pure noise under the empty prompt is kept, and not pictures under prompts."""
        return "output_preservation" in self.terms

    def logit_scale(self, beta: float) -> float:
        """Return the factor of the squared errors in the logit: beta / 2 or beta, see `beta_halved`."""
        return beta / 2 if self.beta_halved else beta

    def default_weight(self, option: str, beta: float) -> float:
        """Return the default of the option that weighs a term, 0 if the objective has no such term."""
        weight = self.terms.get(self.weighed_by.get(option, ""), 0.0)
        return weight * beta if self.weights_per_beta else weight


LOSSES: dict[str, Objective] = {
    "alignguard": Objective(alignguard_loss, 5000.0, {"preservation": 0.0}, "AlignGuard, arXiv:2412.10493"),
    "anchored": Objective(
        anchored_loss,
        None,
        {"safe_lead": 0.2, "preservation": 0.6},
        "our own objective, see losses/anchored.py",
        weights_per_beta=True,
        safe_prompt_weight=0.0,
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
    "composite": Objective(
        composite_loss,
        5000.0,
        {"preservation": 0.0},
        "after the idea of SC-DPO, arXiv:2504.14290; our reading, see losses/composite.py",
        extras=("focus", "labels"),
        relabels=True,
    ),
}


def objective_named(name: str) -> Objective:
    """Return an objective.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in LOSSES:
        raise ValueError(f"objective must be one of {', '.join(LOSSES)}, got {name!r}.")
    return LOSSES[name]


def resolved(config: TrainConfig, measure_beta: Callable[[], float] | None = None) -> TrainConfig:
    """Return the options with the objective's defaults filled in, and with options it does not use set to 0.

    The empty prompt is a caption that is always dropped; both prompts of a pair are then the same.

    Args:
        config: as the user gave it.
        measure_beta: called if the objective's beta is measured and the user gave none.

    Raises:
        ValueError: if the objective is unknown, or beta must be measured and `measure_beta` is None.
    """
    objective = objective_named(config.objective)
    beta = config.beta or objective.beta or (measure_beta and measure_beta())
    if not beta:
        raise ValueError(
            f"the beta of {config.objective} is measured on pairs, and there are none here. Set beta."
        )
    filled: dict[str, object] = {"beta": beta}
    for option in TERM_OPTIONS.values():
        value = getattr(config, option)
        if value < 0 or option not in objective.weighed_by:
            filled[option] = objective.default_weight(option, beta)
    if config.safe_prompt_weight < 0:
        filled["safe_prompt_weight"] = objective.safe_prompt_weight
    filled["prompts"] = objective.prompts if config.prompts == "auto" else config.prompts
    if filled["prompts"] == "empty":
        filled |= {"caption_dropout": 1.0, "safe_prompt_weight": 0.0}
    if objective.relabels and config.pair_weighting == "none":
        filled["pair_weighting"] = "relabel"
    if "focus" not in objective.extras:
        filled["focus"] = 0.0
    if not objective.merge_ready:
        filled["row_dropout"] = 0.0
    weight = filled.get("preserve_weight", config.preserve_weight)
    if not weight or objective.keeps_pure_noise or filled["prompts"] == "empty":
        filled["reach"] = 0.0
    return replace(config, **filled)


def beta_convention(config: TrainConfig) -> str:
    """Return what the beta of resolved options means, and its value in the other convention."""
    if LOSSES[config.objective].beta_halved:
        other = config.beta / 2
        return f"beta / 2 in the logit, as AlignGuard; in DUO and diffusers' SD 1.5 script this is {other:g}"
    return (
        f"beta in the logit, as DUO and diffusers' SD 1.5 script; in AlignGuard this is {config.beta * 2:g}"
    )
