"""Images from the graph's own model, drawn by the host's samplers, without any preview."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ...training.system.tensors import check_finite
from .encoders import plain_tokens
from .pictures import image_of, pictures_of

SAMPLERS, SCHEDULERS = list(comfy.samplers.SAMPLER_NAMES), list(comfy.samplers.SCHEDULER_NAMES)
_ADVICE = "The model, a LoRA on it or its VAE is damaged, or a strength is too high."


@dataclass(frozen=True)
class Sampling:
    """How an image is sampled, as the widgets of KSampler say it.

    Attributes:
        sampler: one of `SAMPLERS`.
        scheduler: one of `SCHEDULERS`.
        steps: of a whole sampling.
        cfg: classifier-free guidance scale.
        resolution: side of the image in pixels, a multiple of 8.
    """

    sampler: str
    scheduler: str
    steps: int
    cfg: float
    resolution: int


class HostDraw:
    """Draws one image at a time as KSampler does; implements `Draw` of `training.making.make_pairs`.

    Args:
        model: MODEL.
        clip: CLIP.
        vae: VAE.
        sampling: how to draw every image.
    """

    def __init__(self, model: Any, clip: Any, vae: Any, sampling: Sampling) -> None:
        self._model, self._clip, self._vae, self._sampling = model, clip, vae, sampling

    def __call__(
        self,
        prompt: str,
        *,
        seed: int,
        negative: str = "",
        source: Tensor | None = None,
        strength: float = 1.0,
    ) -> Tensor:
        """Draw one image, (1, 3, h, w) in [0, 1] on the CPU.

        Args:
            prompt: what to draw.
            seed: of the noise.
            negative: negative prompt.
            source: image to start from, (1, 3, h, w) in [0, 1]; None starts from noise alone.
            strength: share of the sampling that changes the source, in (0, 1].
        """
        with torch.inference_mode(), _global_random_state_kept():
            if source is None:
                side = self._sampling.resolution // self._latent_step()
                latents, strength = torch.zeros(1, 4, side, side), 1.0
            else:
                latents = self._vae.encode(image_of(source))
            latents = comfy.sample.fix_empty_latent_channels(self._model, latents)
            sampled = comfy.sample.sample(
                self._model,
                comfy.sample.prepare_noise(latents, seed),
                steps=self._sampling.steps,
                cfg=self._sampling.cfg,
                sampler_name=self._sampling.sampler,
                scheduler=self._sampling.scheduler,
                positive=self._condition(prompt),
                negative=self._condition(negative),
                latent_image=latents,
                denoise=strength,
                seed=seed,
                callback=_stop_if_cancelled,  # and no preview, because the image may be unsafe
                disable_pbar=True,
            )
            check_finite(sampled, "the latent that the model drew", _ADVICE)
            decoded = self._vae.decode(sampled)
            decoded = decoded.reshape(-1, *decoded.shape[-3:])  # a VAE of videos gives one frame
            check_finite(decoded, "the picture that the VAE decoded", _ADVICE)
            return pictures_of(decoded)

    def _latent_step(self) -> int:
        """Return the pixels per latent; older hosts' latents do not know it, and some VAEs know it wrong."""
        latent_format = self._model.get_model_object("latent_format")
        step = getattr(latent_format, "spacial_downscale_ratio", None)
        return step or self._vae.spacial_compression_encode()

    def _condition(self, text: str) -> Any:
        return self._clip.encode_from_tokens_scheduled(plain_tokens(self._clip, text))


def _stop_if_cancelled(*_: Any) -> None:
    comfy.model_management.throw_exception_if_processing_interrupted()


def _global_random_state_kept() -> AbstractContextManager[None]:
    """Give every device the random state back that the host's noise and samplers reseed."""
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()))
