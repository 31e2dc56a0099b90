"""Options of a training run."""

from dataclasses import dataclass

from .option import SEED_HELP, SEED_MAX, option, validate


@dataclass(frozen=True)
class TrainConfig:
    """How to train one safety expert; each field is documented by its `help`, see `options`.

    The fields stand in the order in which the node and the command line show them: what is learned, how
    long and how strongly, what must stay as it is, images, measuring, memory, saving. The paper's values are
    those of AlignGuard's launch scripts (arXiv:2412.10493, code at 5f71f8d).

    Raises:
        ValueError: if a value breaks the rule of its field; the message names the field, rule and value.
    """

    # what is learned
    objective: str = option(
        "anchored",
        "alignguard is the paper's loss alone. anchored, our own, also leads the unsafe prompt to what the "
        "safe prompt draws and keeps everyday prompts. duo unlearns the image under an empty prompt. "
        "composite relabels pairs by their costs (after SC-DPO).",
    )
    prompts: str = option(
        "auto",  # paper: pair
        "pair trains under the prompts of each pair. empty trains under no prompt, which changes the image "
        "whichever prompt leads to it. auto is empty with duo and pair otherwise. Paper: pair.",
        choices=("auto", "pair", "empty"),
    )
    pair_weighting: str = option(
        "none",  # paper: none
        "none treats all pairs alike. filter leaves out pairs whose loser is not unsafe or whose winner is "
        "not safe. star (STAR-DSS, static) weights pairs by their safety gap. relabel and soft (composite "
        "only) go by quality and cost. All need scored pairs. Paper: none.",
        choices=("none", "filter", "star", "relabel", "soft"),
    )

    # how long and how strongly
    steps: int = option(
        600,  # paper: 2000
        "The most that a run takes; with lr_schedule settle it usually ends sooner. More fit the pairs more "
        "closely and take longer; too many also change other prompts. Paper: 2000.",
        min=1,
        max=100_000,
        step=1,
    )
    batch_size: int = option(
        8,  # paper: 4 (times 4 accumulated)
        "Pairs per batch. Higher is steadier per step and needs more memory; where the batch does not fit, "
        "it is split and the step stays the same. Paper: 4.",
        min=1,
        max=256,
        step=1,
    )
    grad_accumulation: int = option(
        1,  # paper: 4
        "Batches added up before each optimizer step. Higher is steadier and slower and needs no more "
        "memory. Paper: 4.",
        min=1,
        max=256,
        step=1,
    )
    learning_rate: float = option(
        2e-3,  # paper: 1.6e-4 (SD 1.5, one GPU), 1e-5 (SDXL, Adafactor)
        "Higher is faster and less stable. 300 steps at the default go about as far as the paper's 2000 at "
        "its rate. Paper: 1.6e-4 (SD 1.5, one GPU), 1e-5 (SDXL).",
        min=0.0,
        max=1.0,
        step=1e-6,
        positive=True,
    )
    lr_schedule: str = option(
        "settle",  # paper: constant
        "settle lowers the learning rate to zero once the margin on held-out pairs grows no more, and ends "
        "there; without held-out pairs, in the last quarter. cosine lowers it from the first step to the "
        "last, constant never. Paper: constant.",
        choices=("cosine", "constant", "settle"),
    )
    warmup_steps: int = option(
        0,  # paper: 500 (SD 1.5), 0 (SDXL)
        "Steps during which the learning rate rises from zero. More is gentler at the start and learns less "
        "in total. Paper: 500 of 2000 (SD 1.5), 0 (SDXL).",
        min=0,
        max=100_000,
        step=1,
    )
    max_grad_norm: float = option(
        1.0,  # paper: 1.0 (SD 1.5)
        "Gradients longer than this are clipped to it. Lower is safer and slower; 0 never clips. Paper: 1 "
        "(SD 1.5).",
        min=0.0,
        max=1000.0,
        step=0.1,
    )
    weight_decay: float = option(
        1e-2,  # paper: 1e-2
        "Higher pulls the update more strongly towards zero. Paper: 0.01.",
        min=0.0,
        max=1.0,
        step=1e-3,
    )
    rank: int = option(
        16,  # paper: 4
        "Higher changes less beside the pairs and makes a larger file; the time hardly changes. Paper: 4.",
        min=1,
        max=512,
        step=1,
    )
    alpha: float = option(
        0.0,  # paper: alpha = rank
        "The update is multiplied by alpha / rank, so higher acts like a higher learning rate. 0 means equal "
        "to the rank, a factor of one. Paper: alpha = rank.",
        min=0.0,
        max=4096.0,
        step=0.5,
    )
    targets: str = option(
        "attention",  # paper: to_q, to_k, to_v, to_out.0
        "attention trains the projections of every attention layer. attention+ff adds the feed-forward "
        "layers: stronger, a larger file, more side effects. self-attention leaves out the layers that read "
        "the prompt (flows: the text), as DUO does. Paper: attention.",
        choices=("attention", "attention+ff", "self-attention"),
    )
    seed: int = option(0, SEED_HELP, min=0, max=SEED_MAX, step=1)

    # what must stay as it is
    beta: float = option(
        0.0,  # paper: 5000
        "Higher stays closer to the base model and stops learning sooner; lower changes more. 0 takes the "
        "objective's own value, which anchored measures on the pairs. Paper: 5000 (equal to 2500 in duo and "
        "in diffusers' SD 1.5 script).",
        min=0.0,
        max=1e9,
        step=1.0,
    )
    safe_prompt_weight: float = option(
        -1.0,  # paper: 1, both prompts of a pair are rows of the data
        "How much it counts that the safe image also wins under its own prompt. 0 trains only the unsafe "
        "prompt and is faster; below 0 takes the objective's own, which is 0 for anchored. Paper: 1.",
        min=-1.0,
        max=10.0,
        step=0.05,
    )
    caption_dropout: float = option(
        0.2,  # paper: 0.2
        "Share of pairs trained with an empty prompt. Higher moves the unguided image, and so every prompt, "
        "further towards the safe side. Paper: 0.2.",
        min=0.0,
        max=1.0,
        step=0.05,
    )
    anchor_weight: float = option(
        -1.0,  # our own term
        "Only for anchored. Higher leads the unsafe prompt more firmly to what the safe prompt draws; 0 does "
        "not determine what replaces the unsafe image; below 0 takes the objective's own weight. Not in the "
        "paper.",
        min=-1.0,
        max=1e8,
        step=1.0,
    )
    preserve_weight: float = option(
        -1.0,  # our own term; paper: none
        "Higher keeps everyday prompts (with duo: predictions from pure noise) closer to the base model and "
        "slows learning. 0 leaves this term out; below 0 takes the objective's own weight. Not in the paper.",
        min=-1.0,
        max=1e8,
        step=1.0,
    )
    row_dropout: float = option(
        0.0,  # our own
        "Only for anchored: up to this share of output neurons is off in a step. Higher makes an expert that "
        "still works when Co-Merge keeps few of its neurons, and changes other prompts more. Not in the "
        "paper.",
        min=0.0,
        max=0.95,
        step=0.05,
    )

    # images
    flip: float = option(
        0.0,  # paper: 0.5, and drawn for each image of a pair by itself
        "Share of pairs that are mirrored, always both images together. Higher gets more out of few pairs; 0 "
        "keeps left and right as they are, which lettering needs, and halves the encoding. Paper: 0.5, drawn "
        "for each image separately.",
        min=0.0,
        max=1.0,
        step=0.05,
    )
    buckets: bool = option(
        False,  # paper: no
        "Off crops images to a square. On keeps the shape of tall and wide pairs, cropped to the nearest "
        "standard bucket size; each batch then has one shape. Switch it on if your images are not square. "
        "Paper: off.",
    )

    # measuring
    validation: float = option(
        0.1,  # paper: none
        "Share of the pairs (at most 32) held out of training, to measure margin, accuracy and distance to "
        "the base model under the same noise each time. Higher measures better and teaches less; 0 measures "
        "nothing. Paper: none.",
        min=0.0,
        max=0.5,
        step=0.05,
    )
    validate_every: int = option(
        25,
        "Only if validation is above 0: steps between two measurements on held-out pairs; the last step is "
        "measured too. Lower shows more and takes more time. Paper: none.",
        min=1,
        max=100_000,
        step=1,
    )
    patience: int = option(
        0,  # paper: none
        "Only if validation is above 0: training ends after this many measurements without a larger margin "
        "and keeps the expert with the largest. Lower ends sooner; 0 trains to the last step and keeps that. "
        "Paper: none.",
        min=0,
        max=1000,
        step=1,
    )

    # memory and speed
    precision: str = option(
        "auto",  # paper: fp16
        "fp32 is exact and takes the most memory; bf16 and fp16 halve it and are faster on a GPU. auto is "
        "bf16 on an NVIDIA GPU (fp16 if it has no bf16) and fp32 elsewhere. Errors and the loss are always "
        "fp32. Paper: fp16.",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    checkpointing: str = option(
        "auto",  # paper: none (SD 1.5), full (SDXL)
        "Saves memory by computing parts of the model twice: selective the smallest parts, full all of "
        "them, which is 1.2 to 1.35 times slower. auto takes what fits. The result is the same. Paper: none "
        "(SD 1.5), full (SDXL).",
        choices=("auto", "none", "selective", "full"),
    )
    bank: int = option(
        0,  # paper: none
        "Noised versions of each pair, reused in turn, so that the base model's predictions are computed "
        "once: up to 30 % less work with alignguard, 11 % with anchored. Lower saves more and varies less; 0 "
        "draws new noise each time. Paper: none.",
        min=0,
        max=1000,
        step=1,
    )

    # saving
    save_every: int = option(
        0,  # paper: 500
        "Steps between saved states that a stopped run resumes from. Lower loses less and writes more; 0 "
        "saves every ten minutes and at the end. Paper: 500.",
        min=0,
        max=100_000,
        step=1,
    )

    # the composite reward
    cost_weight: float = option(
        1.0,  # our choice
        "Only for pair_weighting relabel and soft: how much a picture's cost counts against its quality. "
        "Higher puts safety first; 0 goes by quality alone. Paper: not used there; SC-DPO's value is not "
        "published.",
        min=0.0,
        max=1000.0,
        step=0.1,
    )
    focus: float = option(
        1.0,  # our choice
        "Only for composite: higher puts pairs that the expert still gets wrong first, and learns more "
        "slowly; 0 treats all alike. Paper: not used there; SC-DPO's value is not published.",
        min=0.0,
        max=10.0,
        step=0.1,
    )

    # beyond the pairs
    reach: float = option(
        0.0,  # our own
        "Only where everyday prompts are kept: up to this share of an everyday word is blended into the "
        "unsafe words. Higher also suppresses words that no pair uses, and keeps a little less of the rest. "
        "Not in the paper.",
        min=0.0,
        max=0.9,
        step=0.05,
    )

    def __post_init__(self) -> None:
        validate(self)
