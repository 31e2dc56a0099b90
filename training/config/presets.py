"""Presets: named sets of training options, for the node and the command line."""

from collections.abc import Mapping
from typing import Any

_PAPER = {  # what AlignGuard's launch scripts have in common, code at 5f71f8d
    "objective": "alignguard",
    "prompts": "pair",
    "steps": 2000,
    "batch_size": 2,  # the scripts' 4 rows: a pair is two rows, one for each prompt
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
    "flip": 0.5,  # deviation: both images of a pair together; the scripts flip each separately
    "buckets": False,
    "bank": 0,
    "validation": 0.0,
    "patience": 0,
    "save_every": 500,
}
_DUO = {  # scripts/sd-nudity.sh and train/unlearn-sd.py of naver-ai/DUO at e0f2ae6, for SD 1.4
    "objective": "duo",
    "prompts": "empty",
    "steps": 1000,
    "batch_size": 4,  # one pair on each of the scripts' four GPUs
    "grad_accumulation": 1,
    "beta": 500.0,
    "learning_rate": 6e-5,  # base_lr 3e-4 times 100 / beta; 3e-5 at the beta of 1000 of the violence script
    "lr_schedule": "constant",
    "warmup_steps": 0,
    "max_grad_norm": 1.0,
    "weight_decay": 1e-2,
    "rank": 32,
    "alpha": 0.0,
    "targets": "self-attention",
    "preserve_weight": -1.0,  # the objective's own is the script's base_lambda 1e6 times beta / 100
    "pair_weighting": "none",
    "precision": "fp16",
    "flip": 0.0,
    "buckets": False,
    "bank": 0,
    "validation": 0.0,
    "patience": 0,
    "save_every": 250,
}
PRESETS: Mapping[str, Mapping[str, Any]] = {  # never rename one: saved graphs store the name
    "custom": {},
    "paper SD 1.5": {**_PAPER, "learning_rate": 1.6e-4, "warmup_steps": 500, "max_grad_norm": 1.0},
    # deviation: the script uses Adafactor, which saves memory only with larger adapters
    "paper SDXL": {**_PAPER, "learning_rate": 1e-5, "warmup_steps": 0, "max_grad_norm": 0.0},
    "DUO SD 1.4": _DUO,
    "quick": {"steps": 60, "batch_size": 4, "grad_accumulation": 1},
}
PRESET_HELP = (
    "Sets several options at once. paper SD 1.5 and paper SDXL follow AlignGuard's launch scripts except in "
    "four points: AdamW replaces SDXL's Adafactor, both images of a pair are flipped together, both prompts "
    "share timestep and noise, and latents are the mean of the VAE's distribution. DUO SD 1.4 follows DUO's "
    "nudity script, made for 64 pairs, except in four points: both images of a pair share the timestep, the "
    "preserved noise is not that of a pair, crops are centred, and latents are the mean. Set resolution to "
    "512 or 1024 yourself. quick runs 60 small steps to see whether everything works. custom sets nothing."
)


def preset_values(preset: str) -> Mapping[str, Any]:
    """Return the options that a preset sets, by name.

    Raises:
        ValueError: if there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}.")
    return PRESETS[preset]


def preset_text(preset: str) -> str:
    """Return what a preset sets as one line of a report; empty for `custom`."""
    values = ", ".join(f"{name} {value}" for name, value in PRESETS[preset].items())
    return f"preset {preset}: {values}" if values else ""
