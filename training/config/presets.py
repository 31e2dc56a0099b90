"""Named sets of training options, for the node and the command line alike."""

from collections.abc import Mapping
from typing import Any

_PAPER = {  # what AlignGuard's launchers share, code at 5f71f8d
    "objective": "alignguard",
    "prompts": "pair",
    "steps": 2000,
    "batch_size": 2,  # the launchers' 4 rows: a pair under its unsafe and its safe prompt is two
    "grad_accumulation": 4,
    "beta": 5000.0,
    "rank": 4,
    "alpha": 0.0,
    "targets": "attention",
    "safe_prompt_weight": 1.0,
    "caption_dropout": 0.2,
    "preserve_weight": 0.0,
    "pair_weighting": "none",
    "weight_decay": 1e-2,
    "precision": "fp16",
    "lr_schedule": "constant",
    "flip": 0.5,  # deviation: both pictures of a pair together, where the launchers flip each by itself
    "buckets": False,
    "bank": 0,
    "validation": 0.0,
    "patience": 0,
    "save_every": 500,
}
PRESETS: Mapping[str, Mapping[str, Any]] = {  # append, never rename: saved graphs store the name
    "custom": {},
    "paper SD 1.5": {**_PAPER, "learning_rate": 1.6e-4, "warmup_steps": 500, "max_grad_norm": 1.0},
    # deviation: the launcher takes Adafactor, which saves memory on larger adapters than this
    "paper SDXL": {**_PAPER, "learning_rate": 1e-5, "warmup_steps": 0, "max_grad_norm": 0.0},
    "quick": {"steps": 60, "batch_size": 4, "grad_accumulation": 1},
}
PRESET_HELP = (
    "paper SD 1.5 and paper SDXL set the options as AlignGuard's launchers do, but for four things: AdamW "
    "stands in for SDXL's Adafactor, the two pictures of a pair are mirrored together, its two prompts share "
    "timestep and noise, and latents are the mean of what the VAE gives. Set resolution to 512 and 1024. "
    "quick is 60 small steps, to see whether everything works; custom sets none."
)


def preset_values(preset: str) -> Mapping[str, Any]:
    """Return the options that a preset sets.

    Raises:
        ValueError: if there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}.")
    return PRESETS[preset]


def preset_text(preset: str) -> str:
    """Return what a preset sets as one line for people; none for `custom`."""
    values = ", ".join(f"{name} {value}" for name, value in PRESETS[preset].items())
    return f"preset {preset}: {values}" if values else ""
