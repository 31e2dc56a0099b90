"""What 30,000 pairs, 28 experts and three families cost, from operations and bytes that are counted.

Nothing here is timed. Operations are counted on tensors without memory, a multiply-add as two. Hours follow
from one assumption, `RATE`: what a GPU sustains in bf16, about a third of an A100's peak. Reading, launching
kernels and waiting for a network are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch

from full_size import CLIP_L, SD15, SDXL, TOKENS, Size, fake_mode, make_unet, without_memory
from peers import make_text_encoders, make_vae
from training.config import MergeConfig, TrainConfig
from training.experts import adapter
from training.losses import resolved
from training.models import FAMILIES
from training.system.processes import ALONE
from training.trainer.expected_time import rows_to_do
from training.trainer.needs import CountedOperations

OPEN_CLIP_H = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
}
SD21 = Size("sd21", SD15.layout, 768, ({**CLIP_L, **OPEN_CLIP_H},))
FAMILIES_AT_SCALE = {"SD 1.5, 512": SD15, "SD 2.1, 768": SD21, "SDXL, 1024": SDXL}
PAIRS, EXPERTS = 30_000, 28
HELD_OUT = 32  # pairs of each expert, at most
GPUS = (1, 8, 64)
RATE = 100e12  # operations per second of one GPU, an assumption
DRAWING_STEPS, ROWS_OF_CFG = 30, 2
FP32 = 4  # bytes; latents, embeddings and experts are stored in it


@dataclass(frozen=True)
class Operations:
    """Operations of one row, which is one picture under one prompt; in TFLOP.

    Attributes:
        forward: prediction of the base model.
        with_backward: prediction with the adapter, and its gradients.
        picture: the VAE's encoder.
        prompt: all text encoders of the family.
    """

    forward: float
    with_backward: float
    picture: float
    prompt: float


def measure() -> dict[str, dict[str, float]]:
    """Return a row per family, and one per number of GPUs with the hours of all 84 trainings."""
    rows = {name: family_row(size) for name, size in FAMILIES_AT_SCALE.items()}
    trainings = [row["an expert, hours"] for row in rows.values() for _ in range(EXPERTS)]
    for count in GPUS:
        rows[f"{count} GPUs"] = {"all trainings, hours": longest_load(trainings, count)}
    return rows


def family_row(size: Size) -> dict[str, float]:
    """Return operations, hours and bytes of one family, for all pairs and experts."""
    counted, merge = count_operations(size), MergeConfig()
    prompts = merge.prompts_per_category * (EXPERTS + 4)  # of everyday prompts four times as many
    expert = expert_operations(counted)
    picture, prompt = entry_bytes(size)
    return {
        "a prediction, TFLOP": counted.forward,
        "a prediction with gradients, TFLOP": counted.with_backward,
        "an expert, PFLOP": expert / 1000,
        "encoding all pairs, hours": hours(2 * PAIRS * (counted.picture + counted.prompt)),
        "an expert, hours": hours(expert),
        "all experts, hours": hours(EXPERTS * expert),
        "calibrating a merge, hours": hours(prompts * merge.timesteps * counted.forward),
        "drawing all pairs, hours": hours(2 * PAIRS * DRAWING_STEPS * ROWS_OF_CFG * counted.forward),
        "cache, GB": 2 * PAIRS * (picture + prompt) / 1e9,
        "an expert, MB": adapter_bytes(size) / 1e6,
    }


def hours(tflop: float) -> float:
    """Return how long one GPU takes at `RATE`."""
    return tflop * 1e12 / RATE / 3600


def count_operations(size: Size) -> Operations:
    """Count one row of the UNet without and with the adapter, one picture and one prompt."""
    with torch.device("meta"):
        unet, vae, texts = make_unet(size), make_vae(), make_text_encoders(size)
    adapter.attach_adapter(unet, rank=TrainConfig().rank, alpha=0, targets=TrainConfig().targets, seed=0)
    family = FAMILIES[size.family]
    counts = []

    def counted(compute) -> None:
        with CountedOperations() as count:
            compute()
        counts.append(count.total / 1e12)

    with fake_mode():
        for module in (unet, vae, *texts):
            without_memory(module)
        latent, time = torch.zeros(1, 4, size.latent_side, size.latent_side), torch.zeros(1)
        added = {"text_embeds": torch.zeros(1, family.pooled_width), "time_ids": torch.zeros(1, 6)}
        conditions = {"added_cond_kwargs": added} if family.pooled_width else {}
        inputs = latent, time, torch.zeros(1, TOKENS, family.text_width)
        with torch.no_grad(), adapter.reference(unet):
            counted(lambda: unet(*inputs, **conditions))
        counted(lambda: unet(*inputs, **conditions).sample.sum().backward())
        with torch.no_grad():
            counted(lambda: vae.encode(torch.zeros(1, 3, size.pixels, size.pixels)))
            tokens = torch.zeros(1, TOKENS, dtype=torch.int64)
            counted(lambda: [text(tokens) for text in texts])
    return Operations(*counts)


def expert_operations(counted: Operations) -> float:
    """Return the operations of training one expert with the default options to the last step, in TFLOP."""
    pairs = range(PAIRS // EXPERTS - HELD_OUT)  # any beta does: it costs nothing
    data = SimpleNamespace(buckets=(SimpleNamespace(pairs=pairs),))
    run = SimpleNamespace(config=resolved(TrainConfig(beta=1.0)), data=data, processes=ALONE)
    rows = rows_to_do(run, SimpleNamespace(step=0, bank=()), HELD_OUT)
    return rows.with_backward * counted.with_backward + rows.without_backward * counted.forward


def entry_bytes(size: Size) -> tuple[int, int]:
    """Return the bytes that the cache keeps of one picture and of one prompt."""
    family = FAMILIES[size.family]
    picture = FP32 * family.latent_channels * size.latent_side**2
    return picture, FP32 * (TOKENS * family.text_width + family.pooled_width)


def adapter_bytes(size: Size) -> int:
    """Return the bytes of an expert in fp32; several processes add up as many in every step."""
    config = TrainConfig()
    with torch.device("meta"):
        unet = make_unet(size)
    adapter.attach_adapter(unet, rank=config.rank, alpha=0, targets=config.targets, seed=0)
    return sum(parameter.nbytes for parameter in unet.parameters() if parameter.requires_grad)


def longest_load(hours: list[float], count: int) -> float:
    """Return when the last of `count` machines is done, each taking the longest job left when it is free."""
    loads = [0.0] * count
    for job in sorted(hours, reverse=True):
        loads[loads.index(min(loads))] += job
    return max(loads)
