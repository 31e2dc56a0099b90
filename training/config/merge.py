"""Options of a merge."""

from dataclasses import dataclass

from .option import SEED_HELP, SEED_MAX, option, validate


@dataclass(frozen=True)
class MergeConfig:
    """How to merge safety experts. Fields are documented by their `help`, see `options`.

    The paper publishes no merge code, so its exact values are unknown (arXiv:2412.10493).

    Raises:
        ValueError: naming the field, the rule and the value, if a value is out of its range.
    """

    method: str = option(
        "regmean",  # paper: co-merge, here re-implemented from its public description
        "regmean fits one update that answers like each expert on prompts of its own category. co_merge "
        "keeps, per output neuron, the expert most active on the calibration prompts. concat adds all at "
        "full strength; the help page describes the others. Paper: co_merge.",
    )
    output_rank: int = option(
        0,  # paper: not stated
        "Lower makes a smaller file and drops the weakest parts. 0 keeps everything, the ranks add up; svd "
        "then takes the rank of one expert. Paper: not stated.",
        min=0,
        max=4096,
        step=1,
    )
    statistic: str = option(
        "win_count",  # paper: "highest activation across all inputs"
        "What most active means. win_count: on "
        "the most prompts; mean: on average; max: on a single prompt, which favours rare strong reactions. "
        "Paper: not stated exactly.",
        choices=("win_count", "mean", "max"),
    )
    timesteps: int = option(
        4,  # our choice
        "Noise levels at which each calibration prompt is run. More is steadier and proportionally slower. "
        "Paper: not stated.",
        min=1,
        max=1000,
        step=1,
    )
    prompts_per_category: int = option(
        32,  # our choice
        "Calibration prompts taken from each category. More is steadier and proportionally slower. Paper: "
        "not stated.",
        min=1,
        max=10_000,
        step=1,
    )
    normalize: bool = option(
        False,  # our choice
        "Compare experts by their activation relative to the size of their own update, so that a weakly "
        "trained one can still win. Off: the strongest update wins more neurons. Paper: not stated.",
    )
    seed: int = option(0, SEED_HELP, min=0, max=SEED_MAX, step=1)
    density: float = option(
        0.5,  # our choice; PEFT has no default, TIES uses 0.2
        "Only for magnitude_prune, ties, dare_linear and dare_ties: share of each expert's weights that is "
        "kept. Lower makes experts collide less and loses more of each. Paper: not used.",
        min=0.01,
        max=1.0,
        step=0.01,
    )
    level: str = option(
        "output neuron",  # paper: "per weight"
        "Only for co_merge: what is taken whole from one expert. rank neuron and rowpick_AB (rows of A and "
        "of B apart) give a LoRA as small as one expert, for experts that started alike. Paper: not stated "
        "exactly.",
        choices=("output neuron", "rank neuron", "rowpick_AB"),
    )
    stop_agreement: float = option(
        0.99,  # our choice
        "Calibration for co_merge ends early once its two halves choose alike to this share. Higher is "
        "steadier and slower; 1 runs every prompt. Paper: not stated.",
        min=0.5,
        max=1.0,
        step=0.01,
    )
    neutral_weight: float = option(
        1.0,  # our choice: as much as one category
        "Only for regmean: how much neutral and safe prompts count against one category. Higher "
        "keeps the base model's pictures better and suppresses less. Paper: not used.",
        min=0.0,
        max=100.0,
        step=0.1,
    )
    ridge: float = option(
        0.3,  # our choice; relative to the mean size of an input's component
        "Only for regmean: how firmly the base model is kept where calibration says little; a tenth of it "
        "where layers read the picture. Higher is safer for other pictures and weakens every expert. Paper: "
        "not used.",
        min=0.0001,
        max=100.0,
        step=0.001,
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class ExtractConfig:
    """How to turn the difference of two models into an expert. Fields are documented by their `help`.

    Raises:
        ValueError: naming the field, the rule and the value, if a value is out of its range.
    """

    rank: int = option(
        32,  # our choice: seven experts of the paper's rank 4 need 28
        "The most components kept of each layer's change. Higher is closer to the tuned model and makes a "
        "larger file; a LoRA that was merged into it comes out at its own rank. Paper: not stated.",
        min=1,
        max=512,
        step=1,
    )
    energy: float = option(
        1.0,  # our choice
        "Share of each layer's squared change after which no further component is kept. Lower makes a "
        "smaller file and drops the weakest parts; 1 keeps all up to rank. Paper: not stated.",
        min=0.01,
        max=1.0,
        step=0.01,
        positive=True,
    )

    def __post_init__(self) -> None:
        validate(self)
