"""Options of training a safety cost model, the judge that a person trains on their own pairs."""

from dataclasses import dataclass

from .option import SEED_MAX, option, validate


@dataclass(frozen=True)
class CostConfig:
    """How to train a safety cost model; each field is documented by its `help`, see `options`.

    SC-DPO (arXiv:2504.14290) publishes no values of its cost model, so all of them are our choice.

    Raises:
        ValueError: if a value breaks the rule of its field; the message names the field, rule and value.
    """

    steps: int = option(
        500,
        "Training steps of each head. More fits the pairs closer and takes proportionally longer. Paper: "
        "not published.",
        min=1,
        max=100_000,
        step=50,
    )
    folds: int = option(
        5,
        "Parts of the pairs. Each head is trained without one of them and scores it, so that no picture is "
        "judged by a head that has seen it. More leaves each head more pairs and takes longer. Paper: not "
        "published.",
        min=2,
        max=20,
        step=1,
    )
    batch_size: int = option(
        64,
        "Pairs per step. More compares more pictures with each other and takes longer. Paper: not published.",
        min=2,
        max=4096,
        step=1,
    )
    learning_rate: float = option(
        1e-3,
        "Higher is faster and less stable. Paper: not published.",
        positive=True,
        max=1.0,
        min=1e-6,
        step=1e-5,
    )
    contrast_weight: float = option(
        0.1,
        "How much it counts that pictures of one kind (safe, or one category of harm) lie close together. 0 "
        "leaves this out. Paper: not published.",
        min=0.0,
        max=10.0,
        step=0.05,
    )
    seed: int = option(
        0, "The same number repeats the training. Paper: not stated.", min=0, max=SEED_MAX, step=1
    )

    def __post_init__(self) -> None:
        validate(self)
