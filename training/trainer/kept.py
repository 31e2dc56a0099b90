"""What training keeps where nobody wrote neutral pictures: what the base model draws from everyday prompts.

The pictures are drawn before the first step, as latents, so no VAE is needed. They are drawn in few steps,
because only their noised versions are seen. Pictures of a user count first: they are at least half of the
rows that are kept. Some prompts are drawn to be measured only, so that a run knows what it does to the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..losses import LOSSES
from ..models.conditioning import Conditioning
from ..models.ddim import draw_latents
from ..models.noise import NoiseSchedule, named_generator
from ..pairs.everyday import Everyday, everyday
from ..pairs.training_data import Bucket, LatentRows, TrainingData

NUM_KEPT, NUM_MEASURED = 64, 24
STEPS, GUIDANCE = 10, 3.0


def everyday_of(config: TrainConfig) -> Everyday:
    """Return the everyday prompts that a run with these options, resolved or not, needs encoded."""
    weight = LOSSES[config.objective].terms.get("preservation")  # None: the objective has no such term
    if weight is not None and config.preserve_weight >= 0:
        weight = config.preserve_weight
    return everyday(NUM_KEPT if weight else 0, NUM_MEASURED)


def kept_text(data: TrainingData, config: TrainConfig) -> str:
    """Return what a run keeps, for people: neutral pictures of a user, everyday prompts, or something else.

    Args:
        data: with the everyday pictures.
        config: resolved options.
    """
    if config.preserve_weight == 0:
        return "nothing"
    if "output_preservation" in LOSSES[config.objective].terms:
        return "predictions from pure noise under the empty prompt"
    num_own = data.num_neutral - data.num_drawn
    if data.neutral_pair is not None:
        num_own = int((data.neutral_pair[:num_own] < 0).sum())
    parts = [f"{num_own} neutral pictures of the pairs folder"] if num_own else []
    parts += [f"{data.num_drawn} pictures that the base model drew from everyday prompts"] * (
        data.num_drawn > 0
    )
    return " and ".join(parts) or "the safe pictures of the pairs"


class MeasuredRows(NamedTuple):
    """Noised everyday pictures that training never keeps, on which its change is measured.

    Attributes:
        noisy: (rows, 4, h, w) fp32.
        timesteps: spread over the schedule, (rows,) int64.
        captions: one row per picture.
    """

    noisy: Tensor
    timesteps: Tensor
    captions: Conditioning


@dataclass(frozen=True)
class EverydayPictures:
    """Draws everyday pictures with the base model.

    Attributes:
        unet: frozen, without an adapter.
        data: the pairs, with the everyday prompts encoded.
        schedule: of the family.
        config: options of the run; its seed decides the pictures, its batch size how many at once.
        check_cancel: called before every batch of pictures.
    """

    unet: nn.Module
    data: TrainingData
    schedule: NoiseSchedule
    config: TrainConfig
    check_cancel: Callable[[], None]

    def kept(self) -> TrainingData:
        """Draw the prompts that training keeps, and return the data with these rows to keep.

        Safe pictures that stand in for neutral ones are not needed any more and are left out. A bucket's
        everyday pictures have its size; the prompts are shared out among the buckets.
        """
        data = self.data
        if not len(data.everyday_prompt):
            return data
        latents: list[Tensor] = []  # (4, h, w) each
        prompts: list[Tensor] = []
        buckets = []
        for bucket, share in zip(
            data.buckets, data.everyday_prompt.tensor_split(len(data.buckets)), strict=True
        ):
            numbers = share if len(share) else data.everyday_prompt[:1]
            first = data.num_neutral + len(latents)
            latents += self._drawn(numbers, bucket.latent_shape)
            prompts.append(numbers)
            buckets.append(_with_rows(bucket, torch.arange(first, first + len(numbers)), data))
        own = torch.full((data.num_neutral,), -1) if data.neutral_pair is None else data.neutral_pair
        return replace(
            data,
            neutral=_appended(data.neutral, latents, copies=1 + data.is_mirrored),
            neutral_prompt=torch.cat([data.neutral_prompt, *prompts]),
            neutral_pair=torch.cat([own, torch.full((len(latents),), -1)]),
            buckets=tuple(buckets),
            num_drawn=len(latents),
        )

    def measured(self) -> MeasuredRows | None:
        """Draw and noise the prompts that are only measured; None where there are none."""
        numbers = self.data.measured_prompt
        if not len(numbers):
            return None
        largest = max(self.data.buckets, key=lambda bucket: len(bucket.pairs))
        clean = torch.stack(self._drawn(numbers, largest.latent_shape))
        timesteps = torch.arange(len(numbers)) * len(self.schedule.alphas_cumprod) // len(numbers)
        noise = torch.randn(clean.shape, generator=named_generator(f"{self.config.seed}/measured noise"))
        noisy = self.schedule.add_noise(clean, noise, timesteps)
        return MeasuredRows(noisy, timesteps, self.data.prompts[numbers])

    def _drawn(self, numbers: Tensor, latent_shape: tuple[int, ...]) -> list[Tensor]:
        """Draw one picture for each of some rows of `data.prompts`: latents (4, h, w) fp32 on the CPU."""
        latents: list[Tensor] = []
        for part in numbers.split(self.config.batch_size):
            self.check_cancel()
            seeds = [named_generator(f"{self.config.seed}/everyday/{number}") for number in part.tolist()]
            drawn = draw_latents(
                self.unet,
                self.schedule,
                self.data.prompts[part],
                torch.stack([torch.randn(latent_shape, generator=seed) for seed in seeds]),
                empty=self.data.empty,
                steps=STEPS,
                guidance=GUIDANCE,
            )
            latents += drawn.cpu().unbind()
        return latents


def _with_rows(bucket: Bucket, drawn: Tensor, data: TrainingData) -> Bucket:
    """Keep drawn rows in a bucket, after a user's own neutral rows, repeated until they are half of all."""
    stands_in = torch.zeros_like(bucket.neutral, dtype=torch.bool)
    if data.neutral_pair is not None:
        stands_in = data.neutral_pair[bucket.neutral] >= 0
    own = bucket.neutral[~stands_in]
    repeats = math.ceil(len(drawn) / len(own)) if len(own) else 0
    return bucket._replace(neutral=torch.cat([own.repeat(repeats), drawn]))


def _appended(table: LatentRows | Tensor, latents: list[Tensor], copies: int) -> LatentRows | Tensor:
    """Append latents to a table, and to each of its mirrored copies: drawn latents cannot be mirrored."""
    if isinstance(table, Tensor):
        return torch.cat([torch.cat([part, torch.stack(latents)]) for part in table.chunk(copies)])
    return table.appended(latents, copies)
