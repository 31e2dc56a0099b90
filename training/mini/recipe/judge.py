"""Train the judge on drawings, on drawings decoded by the autoencoder, and on pictures without an icon."""

import random
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..judge import ICON_NAMES, Classifier
from ..scenes import ALL_SCENES, COLOURS, GROUNDS, Scene
from .autoencoder import scene_batch_of

STEPS = 3000
BATCH = 64
LEARNING_RATE = 2e-3
BANK = 6000  # drawings, kept as drawn and as decoded from a noised latent
NOTHING_SHARE = 0.2


class Bank:
    """Pictures as drawn and as decoded from a noised latent, with the numbers of their right answers.

    Args:
        drawn: (n, 3, 64, 64) in [-1, 1].
        labels: a column per question, (n, questions) int64.
        autoencoder: makes the decoded versions.
        generator: of the noise.
    """

    def __init__(self, drawn: Tensor, labels: Tensor, autoencoder, generator: torch.Generator):
        self.drawn, self.labels = drawn, labels
        self.latents = torch.cat([_encode(autoencoder, part) for part in self.drawn.split(100)])
        spread = torch.rand(len(drawn), 1, 1, 1, generator=generator) * 0.5
        noised = self.latents + spread * torch.randn(self.latents.shape, generator=generator)
        self.decoded = torch.cat([_decode(autoencoder, part) for part in noised.split(100)])

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


def scene_bank(autoencoder, seed: int, generator: torch.Generator) -> Bank:
    """Return BANK pictures of the small world."""
    rng = random.Random(seed)
    scenes = [rng.choice(ALL_SCENES) for _ in range(BANK)]
    return Bank(scene_batch_of(scenes, rng), labels_of(scenes), autoencoder, generator)


def train_judge(
    judge: Classifier,
    bank: Bank,
    generator: torch.Generator,
    on_progress: Callable[[int, int, float], None],
    steps: int = STEPS,
) -> Classifier:
    """Train a classifier whose first question has "nothing" as its last answer, and return it frozen."""
    optimizer = torch.optim.AdamW(judge.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    nothing = torch.full((len(judge.tables),), -1)
    nothing[0] = len(judge.tables[0]) - 1
    for step in range(steps):
        images, labels = draw_batch(bank, nothing, generator)
        heads = zip(judge(images), labels.T, strict=True)
        loss = sum(F.cross_entropy(logits, truth, ignore_index=-1) for logits, truth in heads)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        on_progress(step + 1, steps, loss.item())
    return judge.eval().requires_grad_(False)


def draw_batch(bank: Bank, nothing: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return images (BATCH, 3, 64, 64) and labels (BATCH, questions); a label of -1 is not in the loss.

    Args:
        bank: what to draw from.
        nothing: label of pictures whose icon was destroyed, (questions,).
        generator: of the choices.
    """
    chosen = torch.randint(len(bank.labels), (BATCH,), generator=generator)
    images = bank.pictures(chosen, torch.rand(BATCH, generator=generator) < 0.6)
    images, labels = images.clone(), bank.labels[chosen].clone()
    spoiled = torch.rand(BATCH, generator=generator) < NOTHING_SHARE
    others = bank.decoded[torch.randint(len(bank.labels), (BATCH,), generator=generator)]
    images[spoiled] = spoil(images, others, generator)[spoiled]
    labels[spoiled] = nothing
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
