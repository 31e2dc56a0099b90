"""Train the judge on drawings, on drawings decoded by the autoencoder, and on pictures without an icon."""

import random
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..judge import ICON_NAMES, NO_ICON, Judge
from ..scenes import ALL_SCENES, COLOURS, GROUNDS, Scene
from .autoencoder import scene_batch_of

STEPS = 3000
BATCH = 64
LEARNING_RATE = 2e-3
BANK = 6000  # drawings, kept as drawn and as decoded from a noised latent
NOTHING_SHARE = 0.2


class Bank:
    """Drawn scenes and their decoded versions: images (BANK, 3, 64, 64), labels (BANK, 3)."""

    def __init__(self, autoencoder, count: int, rng: random.Random, generator: torch.Generator):
        scenes = [rng.choice(ALL_SCENES) for _ in range(count)]
        self.drawn = scene_batch_of(scenes, rng)
        self.latents = torch.cat([_encode(autoencoder, part) for part in self.drawn.split(100)])
        spread = torch.rand(count, 1, 1, 1, generator=generator) * 0.5
        noised = self.latents + spread * torch.randn(self.latents.shape, generator=generator)
        self.decoded = torch.cat([_decode(autoencoder, part) for part in noised.split(100)])
        self.labels = labels_of(scenes)

    def pictures(self, chosen: Tensor, decoded: Tensor) -> Tensor:
        """Return the chosen pictures, decoded where `decoded` is true."""
        return torch.where(decoded[:, None, None, None], self.decoded[chosen], self.drawn[chosen])


@torch.no_grad()
def _encode(autoencoder, images: Tensor) -> Tensor:
    return autoencoder.encode(images).latents


@torch.no_grad()
def _decode(autoencoder, latents: Tensor) -> Tensor:
    return autoencoder.decode(latents).sample.clamp(-1, 1)


def labels_of(scenes: Sequence[Scene]) -> Tensor:
    """Return the class numbers of icon, colour and ground, (len(scenes), 3)."""
    tables = (ICON_NAMES, tuple(COLOURS), tuple(GROUNDS))
    return torch.tensor(
        [[t.index(n) for t, n in zip(tables, (s.icon, s.colour, s.ground), strict=True)] for s in scenes]
    )


def train_judge(autoencoder, seed: int, on_progress: Callable[[int, int, float], None]) -> Judge:
    """Train and return the judge."""
    generator = torch.Generator().manual_seed(seed)
    bank = Bank(autoencoder, BANK, random.Random(seed), generator)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        judge = Judge()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    for step in range(STEPS):
        images, labels = draw_batch(bank, generator)
        heads = zip(judge(images), labels.T, strict=True)
        loss = sum(F.cross_entropy(logits, truth, ignore_index=-1) for logits, truth in heads)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        on_progress(step + 1, STEPS, loss.item())
    return judge.eval().requires_grad_(False)


def draw_batch(bank: Bank, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return images (BATCH, 3, 64, 64) and labels (BATCH, 3); a label of -1 is ignored in the loss."""
    chosen = torch.randint(len(bank.labels), (BATCH,), generator=generator)
    images = bank.pictures(chosen, torch.rand(BATCH, generator=generator) < 0.6)
    images, labels = images.clone(), bank.labels[chosen].clone()
    nothing = torch.rand(BATCH, generator=generator) < NOTHING_SHARE
    others = bank.decoded[torch.randint(len(bank.labels), (BATCH,), generator=generator)]
    images[nothing] = spoil(images, others, generator)[nothing]
    labels[nothing] = torch.tensor([ICON_NAMES.index(NO_ICON), -1, -1])
    spread = 0.1 * torch.rand(BATCH, 1, 1, 1, generator=generator)
    return images + spread * torch.randn(images.shape, generator=generator), labels


def spoil(images: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """Destroy icons: blend them with another picture, erase most of them, or blur them; same shape."""
    blended = 0.5 * images + 0.5 * others
    ground = images[:, :, 1:2, 1:2].expand_as(images)
    erased = torch.where(torch.arange(64)[:, None] < 40, ground, images)
    erased = torch.where(torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5, erased, erased.flip(2))
    blurred = F.interpolate(F.avg_pool2d(images, 16), scale_factor=16, mode="bilinear")
    kind = torch.randint(4, (len(images), 1, 1, 1), generator=generator)
    return torch.where(
        kind == 0, blended, torch.where(kind == 1, erased, torch.where(kind == 2, blurred, ground))
    )
