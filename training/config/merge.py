"""Options of making one expert from others: merging experts, and extracting one from two models."""

from dataclasses import dataclass

from .option import SEED_HELP, SEED_MAX, option, validate


@dataclass(frozen=True)
class MergeConfig:
    """How to merge safety experts; each field is documented by its `help`, see `options`.

    The fields stand in the order in which the node and the command line show them: method and size, options
    of single methods, calibration, seed, and what came later. The paper publishes no merge code, so its exact
    values are unknown (arXiv:2412.10493).

    Raises:
        ValueError: if a value breaks the rule of its field; the message names the field, rule and value.
    """

    method: str = option(
        "regmean",  # paper: co-merge, here re-implemented from its public description
        "regmean fits one update that answers like each expert on prompts of its own category. co_merge "
        "keeps, per output neuron, the expert most active on the calibration prompts. concat adds all at "
        "full strength; the help page describes the others. Paper: co_merge.",
    )
    output_rank: int = option(
        0,  # paper: not stated
        "Lower makes a smaller file and drops the weakest parts. 0 keeps everything, so that the ranks add "
        "up; svd then takes the rank of one expert. Paper: not stated.",
        min=0,
        max=4096,
        step=1,
    )

    # options of single methods
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
        "Only for co_merge: the unit taken from one expert. rank neuron and rowpick_AB (rows of A and of B "
        "separately) give a LoRA as small as one expert, for experts trained from the same start. Paper: not "
        "stated exactly.",
        choices=("output neuron", "rank neuron", "rowpick_AB"),
    )
    statistic: str = option(
        "win_count",  # paper: "highest activation across all inputs"
        "Only for co_merge: how the most active expert is chosen. win_count takes the one that wins most "
        "prompts; mean compares averages; max compares single prompts, which favours rare strong reactions. "
        "Paper: not stated exactly.",
        choices=("win_count", "mean", "max"),
    )
    normalize: bool = option(
        False,  # our choice
        "Only for co_merge. On compares activations relative to the size of each expert's update, so that a "
        "weakly trained expert can still win. Off lets the strongest update win more neurons. Paper: not "
        "stated.",
    )
    neutral_weight: float = option(
        8.0,  # our choice
        "Only for regmean, from which distill starts: how much neutral and safe prompts count, relative to "
        "one category. Higher keeps the base model's images better and suppresses less. Paper: not used.",
        min=0.0,
        max=100.0,
        step=0.1,
    )
    ridge: float = option(
        0.001,  # our choice; relative to the mean size of an input's component
        "Only for regmean, from which distill starts: pull towards the base model where calibration says "
        "little. Higher changes other images less and weakens every expert. Paper: not used.",
        min=0.0001,
        max=100.0,
        step=0.001,
    )

    # calibration
    timesteps: int = option(
        4,  # our choice
        "Noise levels that the calibration prompts are spread over; without images of pairs, every prompt "
        "is drawn in so many steps. Paper: not stated.",
        min=1,
        max=1000,
        step=1,
    )
    prompts_per_category: int = option(
        32,  # our choice
        "Calibration prompts taken from each category; of everyday prompts, four times as many. More is "
        "steadier and proportionally slower. Paper: not stated.",
        min=1,
        max=10_000,
        step=1,
    )
    stop_agreement: float = option(
        0.99,  # our choice
        "Only for co_merge: calibration ends early once two halves of the prompts agree on this share of the "
        "winners. Higher is steadier and slower; 1 runs every prompt. Paper: not stated.",
        min=0.5,
        max=1.0,
        step=0.01,
    )

    seed: int = option(0, SEED_HELP, min=0, max=SEED_MAX, step=1)
    distill_steps: int = option(
        300,  # our choice
        "Only for distill: steps in which the merge learns to predict what its experts predict. More comes "
        "closer to them and takes proportionally longer; 300 take about as long as training one expert. "
        "Paper: not used.",
        min=1,
        max=100_000,
        step=1,
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class ExtractConfig:
    """How to extract an expert from the difference of two models; each field is documented by its `help`.

    Raises:
        ValueError: if a value breaks the rule of its field; the message names the field, rule and value.
    """

    rank: int = option(
        32,  # our choice: seven experts of the paper's rank 4 need 28
        "Most components kept of each layer's change. Higher is closer to the tuned model and makes a larger "
        "file; a LoRA that was merged into the model comes out at its own rank. Paper: not stated.",
        min=1,
        max=512,
        step=1,
    )
    energy: float = option(
        1.0,  # our choice
        "Share of each layer's squared change that is kept. Lower makes a smaller file and drops the weakest "
        "components; 1 keeps everything up to rank. Paper: not stated.",
        min=0.01,
        max=1.0,
        step=0.01,
        positive=True,
    )

    def __post_init__(self) -> None:
        validate(self)
