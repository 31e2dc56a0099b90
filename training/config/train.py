"""Options of a training run."""

from dataclasses import dataclass

from .option import SEED_HELP, SEED_MAX, option, validate


@dataclass(frozen=True)
class TrainConfig:
    """How to train one safety expert. Fields are documented by their `help`, see `options`.

    The paper's values are those of AlignGuard's launchers (arXiv:2412.10493, code at 5f71f8d).

    Raises:
        ValueError: naming the field, the rule and the value, if a value is out of its range.
    """

    objective: str = option(
        "anchored",
        "alignguard is the paper's loss and nothing else. anchored, our own, also leads to the safe image, "
        "keeps neutral prompts as they were, and readies the expert for Co-Merge by row dropout. duo "
        "unlearns the image itself, under an empty prompt.",
    )
    steps: int = option(
        300,  # paper: 2000
        "More steps follow the pairs more closely and take longer; too many wear down other prompts. Paper:"
        " 2000.",
        min=1,
        max=100_000,
        step=1,
    )
    batch_size: int = option(
        8,  # paper: 4 (times 4 accumulated)
        "Pairs in memory at once, fewer where that many do not fit; the step stays the same. Higher is "
        "steadier per step and needs more memory. Paper: 4.",
        min=1,
        max=256,
        step=1,
    )
    grad_accumulation: int = option(
        1,  # paper: 4
        "Batches added up before each optimizer step. Higher is steadier and slower and costs no memory. "
        "Paper: 4.",
        min=1,
        max=256,
        step=1,
    )
    learning_rate: float = option(
        1e-3,  # paper: 1.6e-4 (SD 1.5, one GPU), 1e-5 (SDXL, Adafactor)
        "Higher is faster and less stable. Paper: 1.6e-4 (SD 1.5, one GPU), 1e-5 (SDXL).",
        min=0.0,
        max=1.0,
        step=1e-6,
        positive=True,
    )
    beta: float = option(
        0.0,  # paper: 5000
        "Higher stays closer to the base model and stops learning sooner; lower changes more. 0 takes the "
        "objective's own value, which anchored measures on the pairs. Paper: 5000 (2500 means the same in "
        "duo and in diffusers' SD 1.5 script).",
        min=0.0,
        max=1e9,
        step=1.0,
    )
    rank: int = option(
        4,  # paper: 4
        "Higher can learn more detail and makes a larger file; time hardly changes. Paper: 4.",
        min=1,
        max=512,
        step=1,
    )
    alpha: float = option(
        0.0,  # paper: alpha = rank
        "The update is multiplied by alpha / rank, so higher acts like a higher learning rate. 0 means the "
        "rank, a factor of one. Paper: alpha = rank.",
        min=0.0,
        max=4096.0,
        step=0.5,
    )
    targets: str = option(
        "attention",  # paper: to_q, to_k, to_v, to_out.0
        "attention trains the four projections of every attention layer; attention+ff the feed-forward "
        "layers too: stronger, a larger file, more side effects; self-attention no layer that reads the "
        "prompt, as DUO does. Paper: attention.",
        choices=("attention", "attention+ff", "self-attention"),
    )
    safe_prompt_weight: float = option(
        1.0,  # paper: 1, both prompts of a pair are rows of the data
        "How much the safe image must also win under its own prompt. Higher protects safe prompts; 0 trains"
        " the unsafe prompt only and is faster. Paper: 1.",
        min=0.0,
        max=10.0,
        step=0.05,
    )
    caption_dropout: float = option(
        0.2,  # paper: 0.2
        "Share of pairs trained with an empty prompt. Higher moves the unguided image, and so every prompt,"
        " further towards the safe side. Paper: 0.2.",
        min=0.0,
        max=1.0,
        step=0.05,
    )
    warmup_steps: int = option(
        0,  # paper: 500 (SD 1.5), 0 (SDXL)
        "Steps in which the learning rate rises from zero. More is gentler at the start and costs progress."
        " Paper: 500 of 2000 (SD 1.5), 0 (SDXL).",
        min=0,
        max=100_000,
        step=1,
    )
    max_grad_norm: float = option(
        1.0,  # paper: 1.0 (SD 1.5)
        "Larger gradients are shortened to this length. Lower is safer and slower; 0 never shortens. Paper:"
        " 1 (SD 1.5).",
        min=0.0,
        max=1000.0,
        step=0.1,
    )
    weight_decay: float = option(
        1e-2,  # paper: 1e-2
        "Higher pulls the update back towards nothing. Paper: 0.01.",
        min=0.0,
        max=1.0,
        step=1e-3,
    )
    precision: str = option(
        "auto",  # paper: fp16
        "fp32 is exact and takes the most memory; bf16 and fp16 halve it and are faster on a GPU. auto is "
        "bf16 on an NVIDIA GPU (fp16 where that has no bf16) and fp32 elsewhere. Errors and the loss are "
        "always fp32. Paper: fp16.",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    seed: int = option(0, SEED_HELP, min=0, max=SEED_MAX, step=1)
    save_every: int = option(
        0,  # paper: 500
        "Steps between saved states that a stopped run resumes from. Lower loses less and writes more; 0 "
        "saves every ten minutes and at the end. Paper: 500.",
        min=0,
        max=100_000,
        step=1,
    )
    anchor_weight: float = option(
        -1.0,  # our own term
        "Only for anchored. Higher leads the unsafe prompt more firmly to the safe image; 0 leaves open what "
        "replaces it; below 0 takes the objective's own weight. Not in the paper.",
        min=-1.0,
        max=1e8,
        step=1.0,
    )
    preserve_weight: float = option(
        -1.0,  # our own term; paper: none
        "Higher keeps what should stay closer to the base model and slows the change of the rest: neutral "
        "prompts, or with duo what it makes of noise. 0 leaves it out; below 0 takes the objective's own "
        "weight. Not in the paper.",
        min=-1.0,
        max=1e8,
        step=1.0,
    )
    row_dropout: float = option(
        0.9,  # our own; Co-Merge of seven experts leaves each about 1/7 of the output neurons
        "Only for objectives made for merging: up to this share of output neurons is off in a step. Higher "
        "makes an expert that still works when Co-Merge keeps few of its neurons, and takes more steps. "
        "Not in the paper.",
        min=0.0,
        max=0.95,
        step=0.05,
    )
    lr_schedule: str = option(
        "cosine",  # paper: constant
        "cosine lowers the learning rate to zero by the last step, so the expert ends settled and disturbs "
        "other prompts less; a run then cannot be prolonged. constant keeps the rate. Paper: constant.",
        choices=("cosine", "constant"),
    )
    prompts: str = option(
        "auto",  # paper: pair
        "What pairs are trained under. pair: the prompts of each pair. empty: no prompt at all, which "
        "changes the image whatever prompt leads to it. auto: empty with duo, else pair. Paper: pair.",
        choices=("auto", "pair", "empty"),
    )
    pair_weighting: str = option(
        "none",  # paper: none
        "What the judge's scores of the pairs do. filter leaves out pairs whose loser is not unsafe or whose "
        "winner is not safe; star lets a pair teach the less, the less safer it is, and holds the rest to "
        "the base model. Both need judged pairs. Paper: none.",
        choices=("none", "filter", "star"),
    )
    checkpointing: str = option(
        "auto",  # paper: none (SD 1.5), full (SDXL)
        "Keeps less in memory and runs parts of the model again: selective the finest ones, full all of "
        "them, 1.2 to 1.35 times slower. auto takes what fits. The result is the same. Paper: none (SD "
        "1.5), full (SDXL).",
        choices=("auto", "none", "selective", "full"),
    )
    flip: float = option(
        0.0,  # paper: 0.5, and drawn for each image of a pair by itself
        "Share of pairs shown mirrored, always both images alike. Higher makes more of few pairs; 0 keeps "
        "left and right as they are, which lettering needs, and encodes half as much. Paper: 0.5, but drawn "
        "for each image alone.",
        min=0.0,
        max=1.0,
        step=0.05,
    )
    buckets: bool = option(
        False,  # paper: no
        "Off: pictures are cropped to a square. On: tall and wide pairs keep their shape, cropped to the "
        "nearest of the bucket sizes other trainers use, and each batch has one shape. On for pictures that "
        "are not square. Paper: off.",
    )

    bank: int = option(
        0,  # paper: none
        "Each pair meets only so many noised versions of itself, in turn, and what the base model makes of "
        "them is computed once: up to 30 % less work where pairs are seen more often than that. Fewer saves "
        "more and varies less; 0 draws new noise each time. Paper: none.",
        min=0,
        max=1000,
        step=1,
    )

    validation: float = option(
        0.0,  # paper: none
        "Share of the pairs, at most 32 of them, that are not trained on but measured: margin, accuracy and "
        "distance to the base model, under the same noise each time. Higher measures better and teaches "
        "less; 0 measures nothing. Paper: none.",
        min=0.0,
        max=0.5,
        step=0.05,
    )
    validate_every: int = option(
        25,
        "Steps between two measurements on held-out pairs; the last step is measured too. Lower sees more "
        "and takes more time. Only where validation is above 0. Paper: none.",
        min=1,
        max=100_000,
        step=1,
    )
    patience: int = option(
        0,  # paper: none
        "Training ends after so many measurements on held-out pairs without a larger margin, and the expert "
        "is the one with the largest. Lower ends sooner; 0 goes on to the last step and keeps that. Needs "
        "validation. Paper: none.",
        min=0,
        max=1000,
        step=1,
    )

    def __post_init__(self) -> None:
        validate(self)
