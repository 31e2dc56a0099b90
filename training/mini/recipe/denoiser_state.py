"""Save and load a denoiser in training, so that a killed recipe goes on where it stopped."""

import os
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .denoiser import Denoiser


def save_denoiser(denoiser: Denoiser, path: Path) -> None:
    """Write weights, moving average, optimizer, step and random state; an older file is replaced at once."""
    tensors = {"generator": denoiser.generator.get_state(), "steps": torch.tensor(denoiser.steps)}
    for part in ("unet", "average"):
        tensors |= {f"{part}/{name}": t for name, t in getattr(denoiser, part).state_dict().items()}
    for number, state in denoiser.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{name}": tensor for name, tensor in state.items()}
    unfinished = path.with_suffix(".unfinished")
    save_file(tensors, unfinished)
    os.replace(unfinished, path)


def load_denoiser(denoiser: Denoiser, path: Path) -> None:
    """Bring a new denoiser to the state that was saved."""
    parts: dict[str, dict[str, torch.Tensor]] = {"unet": {}, "average": {}, "optimizer": {}}
    tensors = load_file(path)
    denoiser.generator.set_state(tensors.pop("generator"))
    denoiser.steps = int(tensors.pop("steps"))
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = tensor
    denoiser.unet.load_state_dict(parts["unet"])
    denoiser.average.load_state_dict(parts["average"])
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in parts["optimizer"].items():
        number, _, key = name.partition("/")
        states.setdefault(int(number), {})[key] = tensor
    denoiser.optimizer.load_state_dict(denoiser.optimizer.state_dict() | {"state": states})
    denoiser.schedule.last_epoch = denoiser.steps - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the optimizer's steps were taken before the kill
        denoiser.schedule.step()
