"""The effect of a style LoRA on a safety expert, by way of training (Modular LoRA, arXiv:2412.00357).

The style draws everything yellow on purple, whatever the prompt says. It learns from pictures of safe
counterparts alone; the neutral icons, which show what it leaves of the rest, are not among them. The figures
show that the parts work together; they say nothing about Stable Diffusion.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from candidates import SEED, Candidate, Change, as_change, candidates, changed, texts
from columns import COLUMNS, Drawer
from mini_lab import Lab, MiniLab
from training.config import MergeConfig
from training.evaluation.statistics import wilson
from training.experts import adapter
from training.experts.low_rank import LowRank
from training.mini.pairs import safe_scenes
from training.mini.recipe.autoencoder import scene_batch_of
from training.mini.scenes import Scene
from training.rules.categories import CATEGORIES

COLOUR, GROUND = "yellow", "purple"
RANK, STEPS, BATCH, LEARNING_RATE = 4, 250, 8, 2e-3
DRAWINGS = 4  # pictures per prompt


def measure() -> dict:
    """Train the style in each way beside the default merge, and measure IP, retention and style.

    modular: trained on the base model and added to the expert for drawing. sequential: trained with the
    expert merged into the base model's weights. joint: training continues on the factors of the expert.

    Returns:
        Way -> IP over all categories, share of harmless prompts drawn with the right icon, and share of them
        drawn in the style, each with its 95 % interval and n.
    """
    lab = MiniLab()
    expert = candidates(lab)[MergeConfig().method]().layers[""]
    changes = {"no style": as_change(expert, lab.unet), **styles(lab, expert)}
    drawer = Drawer(lab, {})
    return {way: _row(drawer, Candidate({"": change})) for way, change in changes.items()}


def styles(lab: MiniLab, expert: Mapping[str, LowRank]) -> dict[str, Change]:
    """Return the joint change of expert and style to the base model, by way of training."""
    safe = as_change(expert, lab.unet)
    modular = as_change(train_style(lab.unet, lab), lab.unet)
    with changed(lab.unet, safe):
        sequential = as_change(train_style(lab.unet, lab), lab.unet)
    joint = as_change(train_style(lab.unet, lab, expert), lab.unet)
    return {
        "modular": summed(safe, modular),
        "sequential": summed(safe, sequential),
        "joint": joint,
    }


def train_style(
    unet: nn.Module, lab: MiniLab, start: Mapping[str, LowRank] | None = None
) -> dict[str, LowRank]:
    """Train a style LoRA with the plain denoising loss on harmless pictures drawn in the style.

    Args:
        unet: frozen UNet; it is restored afterwards.
        lab: provides autoencoder, embeddings and schedule.
        start: factors from which training continues (`joint`); None starts a new LoRA of `RANK`.

    Returns:
        Module path -> LoRA; with `start`, one LoRA of that LoRA and the style.
    """
    scenes = safe_scenes()
    captions = texts(lab, [scene.prompt() for scene in scenes])
    return fit_style(unet, lab, _drawings(lab, scenes), captions, start)


def fit_style(
    unet: nn.Module,
    lab: Lab,
    drawings: Tensor,
    captions: Tensor,
    start: Mapping[str, LowRank] | None = None,
) -> dict[str, LowRank]:
    """Train a style LoRA with the plain denoising loss.

    Args:
        unet: frozen UNet; it is restored afterwards.
        lab: provides the schedule.
        drawings: latents in the style, (captions, drawings per caption, 4, 8, 8).
        captions: encoded prompts, which do not name the style, (captions, 77, 768).
        start: factors from which training continues; None starts a new LoRA of `RANK`.
    """
    generator = torch.Generator().manual_seed(SEED)
    with _attached(unet, start), torch.enable_grad():
        parameters = list(adapter.adapter_parameters(unet).values())
        optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
        for _ in range(STEPS):
            caption_numbers = torch.randint(len(captions), (BATCH,), generator=generator)
            drawing_numbers = torch.randint(drawings.shape[1], (BATCH,), generator=generator)
            timesteps = torch.randint(1000, (BATCH,), generator=generator)
            clean = drawings[caption_numbers, drawing_numbers]
            noise = torch.randn(clean.shape, generator=generator)
            noisy = lab.schedule.add_noise(clean, noise, timesteps)
            loss = F.mse_loss(unet(noisy, timesteps, captions[caption_numbers]).sample, noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return adapter.read_adapter(unet)


@contextmanager
def _attached(unet: nn.Module, start: Mapping[str, LowRank] | None) -> Iterator[None]:
    rank = max((layer.rank for layer in start.values()), default=RANK) if start else RANK
    adapter.attach_adapter(unet, rank=rank, alpha=0, targets="attention", seed=SEED)
    try:
        if start:
            adapter.load_adapter(unet, {name: of_rank(layer, rank) for name, layer in start.items()})
        yield
    finally:
        adapter.detach_adapter(unet)


def of_rank(layer: LowRank, rank: int) -> LowRank:
    """Pad an update with zero directions to a rank, because an adapter has one rank for all layers."""
    missing = rank - layer.rank
    return LowRank(F.pad(layer.up, (0, missing)), F.pad(layer.down, (0, 0, 0, missing)))


@torch.no_grad()
def _drawings(lab: MiniLab, scenes: Sequence[Scene]) -> Tensor:
    rng = random.Random(SEED)
    styled = [Scene(scene.icon, COLOUR, GROUND) for scene in scenes for _ in range(DRAWINGS)]
    encoded = lab.autoencoder.encode(scene_batch_of(styled, rng)).latents
    return encoded.unflatten(0, (len(scenes), DRAWINGS))


def summed(*changes: Change) -> Change:
    names = {name for change in changes for name in change}
    return {name: sum(change[name] for change in changes if name in change) for name in names}


def _row(drawer: Drawer, candidate: Candidate) -> dict[str, str]:
    unsafe = [drawer.hits(candidate, COLUMNS["IP"], category) for category in CATEGORIES]
    kept = COLUMNS["kept"]
    verdicts = [verdict for name in kept.groups for verdict in drawer.look(candidate, kept, name)]
    icons = sum(verdict.icon == scene.icon for verdict, scene in verdicts)
    styled = sum((verdict.colour, verdict.ground) == (COLOUR, GROUND) for verdict, _ in verdicts)
    return {
        "ip": share(*map(sum, zip(*unsafe, strict=True))),
        "icon_kept": share(icons, len(verdicts)),
        "in_style": share(styled, len(verdicts)),
    }


def share(hits: int, n: int) -> str:
    """Return a share with its 95 % interval and n as text."""
    low, high = wilson(hits, n)
    return f"{hits / n:.3f} ({low:.2f}-{high:.2f}) of {n}"
