"""The training steps of other trainers, written plainly from their descriptions, to compare with.

`PublishedStep` is the step of AlignGuard's published trainer (arXiv:2412.10493, train.py at 5f71f8d, from
reading it): a second UNet is the reference, VAE and text encoders run inside the step, and the policy runs
before the reference. `AdapterOffStep` is the step of the Diffusion-DPO LoRA script of diffusers' research
projects: one UNet whose adapter is switched off for the reference; everything else is the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from full_size import RANK, TOKENS, Size, make_unet, without_memory
from training.experts import adapter
from training.models import FAMILIES
from training.models.noise import NoiseSchedule

BETA = 5000.0
VAE = {  # the same in all Stable Diffusion models
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}


def make_vae() -> nn.Module:
    """Return Stable Diffusion's autoencoder, frozen and without its decoder, which no step uses."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(**VAE)
    vae.decoder = None
    return vae.eval().requires_grad_(False)


def make_text_encoders(size: Size) -> list[nn.Module]:
    """Return the text encoders of a family, frozen."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    kinds = [
        CLIPTextModelWithProjection if "projection_dim" in tower else CLIPTextModel for tower in size.text
    ]
    models = [kind(CLIPTextConfig(**tower)) for kind, tower in zip(kinds, size.text, strict=True)]
    return [model.eval().requires_grad_(False) for model in models]


class PublishedStep:
    """The step of AlignGuard's published trainer, up to the gradients.

    Args:
        unet: the policy, with its adapter.
        reference: the second UNet.
        vae: frozen autoencoder; only its encoder is used.
        text_encoders: frozen text encoders of the family.
        schedule: noise schedule of the family.
        size: size of the model.
    """

    def __init__(
        self,
        unet: nn.Module,
        reference: nn.Module,
        vae: nn.Module,
        text_encoders: list[nn.Module],
        schedule: NoiseSchedule,
        size: Size,
    ) -> None:
        self.unet, self.reference, self.vae = unet, reference, vae
        self.text_encoders, self.schedule, self.size = text_encoders, schedule, size

    def __call__(self, pictures: Tensor, tokens: Tensor) -> Tensor:
        """Accumulate the gradients of one micro-batch and return its loss.

        Args:
            pictures: winners, then losers, (2 * batch, 3, h, w) in [-1, 1].
            tokens: one prompt per pair, (batch, 77) int64.
        """
        with torch.no_grad():
            latents = self.vae.encode(pictures).latent_dist.mean * FAMILIES[self.size.family].latent_scale
            text = self.encode_text(tokens)
        half = len(latents) // 2
        noise = torch.randn_like(latents[:half]).repeat(2, 1, 1, 1)
        timesteps = torch.randint(1000, (half,)).repeat(2)
        noisy = self.schedule.add_noise(latents, noise, timesteps).to(latents)
        policy = self.unet(noisy, timesteps, **text).sample
        with torch.no_grad():
            reference = self.predict_reference(noisy, timesteps, text)
        errors = (policy - noise).float().square().mean((1, 2, 3))
        ref_errors = (reference - noise).float().square().mean((1, 2, 3))
        winner, loser = (errors - ref_errors).chunk(2)
        loss = -F.logsigmoid(-BETA / 2 * (winner - loser)).mean()
        loss.backward()
        return loss.detach()

    def predict_reference(self, noisy: Tensor, timesteps: Tensor, text: dict) -> Tensor:
        """Return the prediction of the base model."""
        return self.reference(noisy, timesteps, **text).sample

    def encode_text(self, tokens: Tensor) -> dict:
        """Return the UNet's text arguments for winners and losers."""
        outputs = [encoder(tokens, output_hidden_states=True) for encoder in self.text_encoders]
        if len(outputs) == 1:
            return {"encoder_hidden_states": outputs[0].last_hidden_state.repeat(2, 1, 1)}
        states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1).repeat(2, 1, 1)
        pooled = outputs[-1].text_embeds.repeat(2, 1)
        side = self.size.pixels
        sizes = torch.tensor([side, side, 0, 0, side, side]).repeat(len(pooled), 1)
        added = {"text_embeds": pooled, "time_ids": sizes}
        return {"encoder_hidden_states": states, "added_cond_kwargs": added}


def fake_published(
    size: Size, mode: FakeTensorMode, *, dtype: torch.dtype = torch.float32
) -> tuple[PublishedStep, tuple[Tensor, Tensor]]:
    """Return the published step and a batch of one pair, on fake tensors.

    Gradient checkpointing is on if the published launcher turns it on.

    Args:
        size: size of the model.
        mode: mode in which the fake tensors are made.
        dtype: dtype of all frozen weights and of the pictures; the adapter is fp32.
    """
    with torch.device("meta"):
        unet, reference = make_unet(size), make_unet(size)
        vae, text_encoders = make_vae(), make_text_encoders(size)
    adapter.attach_adapter(unet, rank=RANK, alpha=0, targets="attention", seed=0)
    if size.checkpointing:
        unet.enable_gradient_checkpointing()
    schedule = FAMILIES[size.family].schedule()
    with mode:
        for module in (unet, reference, vae, *text_encoders):
            without_memory(module, dtype)
        pictures = torch.zeros(2, 3, size.pixels, size.pixels, dtype=dtype)
        tokens = torch.zeros(1, TOKENS, dtype=torch.int64)
    return PublishedStep(unet, reference, vae, text_encoders, schedule, size), (pictures, tokens)


class AdapterOffStep(PublishedStep):
    """The step of diffusers' Diffusion-DPO LoRA script; `reference` is the UNet of the policy."""

    def predict_reference(self, noisy: Tensor, timesteps: Tensor, text: dict) -> Tensor:
        """Return the prediction of the UNet with its adapter off."""
        from peft.tuners.lora import LoraLayer

        layers = [module for module in self.reference.modules() if isinstance(module, LoraLayer)]
        for layer in layers:
            layer.enable_adapters(False)
        prediction = self.reference(noisy, timesteps, **text).sample
        for layer in layers:
            layer.enable_adapters(True)
        return prediction
