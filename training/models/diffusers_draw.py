"""Drawing without a host: a base model from disk, sampled with the schedulers of diffusers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ..system.tensors import check_finite
from .base_model import BaseModel
from .conditioning import LATENT_STEP, Conditioning, predict

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
}
_ADVICE = "The base model or an expert on it is damaged, or too strong; use other files or a lower strength."
_CACHED_PROMPTS = 32  # the empty prompt is used for every picture, other prompts with several seeds


class DiffusersDraw:
    """Draws pictures with classifier-free guidance; a `Draw` for making pairs.

    Args:
        base: the model, on its device unless `encode_ahead` is called.
        scheduler: a key of `SCHEDULERS`.
        steps: number of steps of a whole sampling.
        cfg: guidance scale; predicted = plain + cfg * (guided - plain).
        resolution: side of the picture in pixels, a multiple of 8.

    Raises:
        ValueError: if the scheduler is unknown.
    """

    def __init__(self, base: BaseModel, *, scheduler: str, steps: int, cfg: float, resolution: int) -> None:
        self._base, self._steps, self._cfg = base, steps, cfg
        self._side = resolution // LATENT_STEP
        self._scheduler = _make_scheduler(base, scheduler)
        self._encode = lru_cache(_CACHED_PROMPTS)(base.encode_prompt)
        self._encoded_ahead: dict[str, Conditioning] = {}

    def encode_ahead(self, prompts: Sequence[str], device: torch.device | str) -> None:
        """Encode the next prompts, so that the device never holds text encoder and UNet at the same time.

        Args:
            prompts: the only prompts that are drawn until the next call, besides the empty one.
            device: device for encoding and drawing. The UNet is moved over the CPU, so call this while no
                expert is attached to it.
        """
        self._base.text_encoder_alone_to(device)
        unique = dict.fromkeys(["", *prompts])
        self._encoded_ahead = {prompt: self._base.encode_prompt(prompt).to("cpu") for prompt in unique}
        self._base.all_but_text_encoder_to(device)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Conditioning,
        *,
        seed: int,
        negative: str = "",
        source: Tensor | None = None,
        strength: float = 1.0,
    ) -> Tensor:
        """Draw one picture, (1, 3, h, w) in [0, 1] on the CPU.

        Args:
            prompt: text, or one row of an encoded prompt.
            seed: seed of the starting noise.
            negative: prompt that guidance moves away from.
            source: picture to start from, (1, 3, h, w) in [0, 1]; None starts from noise.
            strength: share of the sampling that changes the source, in (0, 1].

        Raises:
            ValueError: if the latent or the picture is not finite.
        """
        timesteps = self._timesteps(strength if source is not None else 1.0)
        latents = self._start(source, timesteps, seed)
        context = Conditioning.concatenate([self._condition(negative), self._condition(prompt)])
        for timestep in timesteps:
            scaled = self._scheduler.scale_model_input(latents, timestep)
            plain, guided = self._predict(torch.cat([scaled, scaled]), timestep, context).chunk(2)
            predicted = plain + self._cfg * (guided - plain)
            latents = self._scheduler.step(predicted, timestep, latents).prev_sample
            check_finite(latents, f"the latent drawn at timestep {int(timestep)}", _ADVICE)
        return ((self._base.autoencoder.decode(latents) + 1) / 2).cpu()

    def _condition(self, prompt: str | Conditioning) -> Conditioning:
        if isinstance(prompt, str):
            prompt = self._encoded_ahead[prompt] if prompt in self._encoded_ahead else self._encode(prompt)
        return prompt.to(self._base.unet.conv_in.weight)

    def _timesteps(self, strength: float) -> Tensor:
        """Return the timesteps of the last `strength` of the sampling, at least one."""
        self._scheduler.set_timesteps(self._steps, device=self._base.unet.device)
        start = self._steps - max(1, round(self._steps * strength))
        if hasattr(self._scheduler, "set_begin_index"):
            self._scheduler.set_begin_index(start)
        return self._scheduler.timesteps[start:]

    def _start(self, source: Tensor | None, timesteps: Tensor, seed: int) -> Tensor:
        shape = (1, self._base.family.latent_channels, self._side, self._side)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))  # as ComfyUI draws it
        noise = noise.to(self._base.unet.device)
        if source is None:
            return noise * self._scheduler.init_noise_sigma
        latents = self._base.encode_image(source * 2 - 1)
        return self._scheduler.add_noise(latents, noise, timesteps[:1])

    def _predict(self, latents: Tensor, timestep: Tensor, context: Conditioning) -> Tensor:
        dtype = self._base.unet.conv_in.weight.dtype
        timesteps = timestep.expand(len(latents))
        return predict(self._base.unet, latents.to(dtype), timesteps, context).float()


def _make_scheduler(base: BaseModel, name: str):
    import diffusers  # imported late: a broken install must not remove the nodes

    if name not in SCHEDULERS:
        raise ValueError(f"scheduler must be one of {', '.join(SCHEDULERS)}, got {name!r}.")
    schedule = base.schedule
    options = {"trained_betas": _betas(schedule.alphas_cumprod), "prediction_type": schedule.prediction_type}
    if name == "ddim":
        options["clip_sample"] = False
    return getattr(diffusers, SCHEDULERS[name])(**options)


def _betas(alphas_cumprod: Tensor) -> list[float]:
    """Return the variance added at each timestep, because diffusers takes a schedule in this form."""
    alphas = alphas_cumprod.double()
    return (1 - alphas / torch.cat([alphas.new_ones(1), alphas[:-1]])).tolist()
