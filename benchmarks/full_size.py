"""The real training run at the full size of a family, on tensors that have shapes but no memory.

torch's fake tensors claim to be on the CPU, so the training code runs as it does there, autocast and fused
attention included. Every operation and every byte can be counted within seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from training.config import TrainConfig
from training.experts import adapter
from training.losses import resolved
from training.models import FAMILIES
from training.models.conditioning import Conditioning
from training.models.native_unet import Layout, unet_config
from training.pairs.training_data import Bucket, TrainingData
from training.trainer.batch import draw_batch
from training.trainer.progress import Progress
from training.trainer.run import Run
from training.trainer.step import accumulate_gradients

TOKENS = 77
RANK = 4  # as in AlignGuard


@dataclass(frozen=True)
class Size:
    """A model family at its native resolution.

    Attributes:
        family: key of FAMILIES.
        layout: layout of its UNet.
        pixels: side of a picture in pixels.
        text: CLIPTextConfig settings of its text encoders; the encoder with a projection gives the pooled
            embedding.
        checkpointing: whether the published trainer's launcher turns gradient checkpointing on.
    """

    family: str
    layout: Layout
    pixels: int
    text: tuple[Mapping[str, Any], ...]
    checkpointing: bool = False

    @property
    def latent_side(self) -> int:
        """Side of a latent, in latent elements."""
        return self.pixels // 8


CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
SD15 = Size(
    "sd15",
    Layout((320, 640, 1280, 1280), (True, True, True, False), 2, 4, 4, depth=(1, 1, 1, 0)),
    512,
    (CLIP_L,),
)
BIG_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}
SDXL = Size(
    "sdxl",
    Layout((320, 640, 1280), (False, True, True), 2, 4, 4, depth=(0, 2, 10)),
    1024,
    (CLIP_L, BIG_G),
    checkpointing=True,
)
SIZES = {"SD 1.5, 512": SD15, "SDXL, 1024": SDXL}


def paper_config(**options: Any) -> TrainConfig:
    """Return the paper's objective and rank for one pair under one prompt; `options` override them."""
    settings = {"objective": "alignguard", "batch_size": 1, "safe_prompt_weight": 0.0, "rank": RANK}
    return resolved(TrainConfig(**settings | options))


def resized(size: Size, pixels: int) -> Size:
    """Return the same model for another picture size."""
    return replace(size, pixels=pixels)


def make_unet(size: Size) -> nn.Module:
    """Return the frozen UNet of the family as the library sets it up, on the default device."""
    from diffusers import UNet2DConditionModel  # late, as in the library

    unet = UNet2DConditionModel(**unet_config(size.layout, FAMILIES[size.family]))
    return unet.eval().requires_grad_(False)


def make_real_unet(size: Size) -> nn.Module:
    """Return a UNet with memory, in fp32, filled quickly from one repeated row of random numbers."""
    with torch.device("meta"):
        unet = make_unet(size)
    unet.to_empty(device="cpu")
    numbers = torch.randn(2**20, generator=torch.Generator().manual_seed(0)) / 50  # about 1 / sqrt(fan-in)
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if weight.ndim == 1:
                weight.fill_(float(name.endswith("weight")))  # weights of norms are one; biases are zero
            else:
                weight.view(-1).copy_(numbers.repeat(weight.numel() // len(numbers) + 1)[: weight.numel()])
    return unet


def sharing_weights(unet: nn.Module, size: Size) -> nn.Module:
    """Return a second UNet that shares the memory: it is as slow as a real copy and saves 3.4 GB."""
    with torch.device("meta"):
        second = make_unet(size)
    second.load_state_dict(unet.state_dict(), assign=True)
    return second.requires_grad_(False)


def make_data(size: Size, num_pairs: int) -> TrainingData:
    """Return encoded pairs of the right shapes, with one prompt for all pairs."""
    shape = (4, size.latent_side, size.latent_side)
    latents, numbers = torch.zeros(num_pairs, *shape), torch.arange(num_pairs)
    family = FAMILIES[size.family]
    pooled = torch.zeros(1, family.pooled_width) if family.pooled_width else None
    prompts = Conditioning(torch.zeros(1, TOKENS, family.text_width), pooled)
    row = torch.zeros(num_pairs, dtype=torch.int64)
    return TrainingData(
        *(latents, latents, latents),
        *(prompts, row, row, row, prompts),
        buckets=(Bucket(shape, numbers, numbers),),
        pairs_hash="",
        encoding_hash="",
    )


def fake_mode() -> FakeTensorMode:
    """Return the mode in which new tensors have no memory."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def without_memory(module: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Replace the meta tensors of a module by fake CPU tensors; call it inside `fake_mode`.

    Trainable tensors keep their dtype, as they do in the library's adapter.
    """
    for part in module.modules():
        for name, old in part._parameters.items():
            if old is not None:
                new = torch.empty(old.shape, dtype=old.dtype if old.requires_grad else dtype)
                part._parameters[name] = nn.Parameter(new, requires_grad=old.requires_grad)
        for name, old in part._buffers.items():
            if old is not None:
                part._buffers[name] = torch.empty(old.shape, dtype=old.dtype)
    return module


def fake_run(
    size: Size, config: TrainConfig, mode: FakeTensorMode, *, dtype: torch.dtype = torch.float32
) -> Run:
    """Return a training run of the library on fake tensors, before its first step.

    Args:
        size: size of the model.
        config: options of the run.
        mode: mode in which the fake tensors are made.
        dtype: dtype of the base weights; the adapter is fp32.
    """
    with torch.device("meta"):
        unet = make_unet(size)
    adapter.attach_adapter(unet, rank=config.rank, alpha=config.alpha, targets=config.targets, seed=0)
    schedule = FAMILIES[size.family].schedule()
    with mode, mock.patch.object(adapter, "initial_a_hash", return_value=""):  # no bytes to hash
        data = make_data(size, config.batch_size)
        return Run.of(without_memory(unet, dtype), data, schedule, resolved(config))


def gradients(run: Run) -> None:
    """Run the first step up to the gradients; updating the adapter would need real numbers."""
    accumulate_gradients(run, Progress(run), draw_batch(run, 0))
