"""Pictures from the graph's own model, drawn by the host's samplers, without any preview."""

from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from .pictures import image_of, pictures_of

SAMPLERS, SCHEDULERS = list(comfy.samplers.SAMPLER_NAMES), list(comfy.samplers.SCHEDULER_NAMES)


class HostDraw:
    """Draws one picture at a time as KSampler does; see `training.making.Draw`.

    Args:
        model: MODEL.
        clip: CLIP.
        vae: VAE.
        sampler: out of `SAMPLERS`.
        scheduler: out of `SCHEDULERS`.
        steps: of a whole sampling.
        cfg: guidance.
        resolution: side of the picture in pixels.
    """

    def __init__(
        self,
        model: Any,
        clip: Any,
        vae: Any,
        *,
        sampler: str,
        scheduler: str,
        steps: int,
        cfg: float,
        resolution: int,
    ):
        self._model, self._clip, self._vae = model, clip, vae
        self._sampling = {"steps": steps, "cfg": cfg, "sampler_name": sampler, "scheduler": scheduler}
        self._side = resolution // 8

    def __call__(
        self,
        prompt: str,
        *,
        seed: int,
        negative: str = "",
        source: Tensor | None = None,
        strength: float = 1.0,
    ) -> Tensor:
        """Draw one picture, (1, 3, h, w) in [0, 1] on the CPU."""
        with torch.inference_mode():
            if source is None:
                latents, strength = torch.zeros(1, 4, self._side, self._side), 1.0
            else:
                latents = self._vae.encode(image_of(source))
            latents = comfy.sample.fix_empty_latent_channels(self._model, latents)
            drawn = comfy.sample.sample(
                self._model,
                comfy.sample.prepare_noise(latents, seed),
                positive=self._condition(prompt),
                negative=self._condition(negative),
                latent_image=latents,
                denoise=strength,
                seed=seed,
                callback=_stop_if_cancelled,  # and no preview: the picture may be unsafe
                disable_pbar=True,
                **self._sampling,
            )
            return pictures_of(self._vae.decode(drawn))

    def _condition(self, text: str) -> Any:
        return self._clip.encode_from_tokens_scheduled(self._clip.tokenize(text, disable_weights=True))


def _stop_if_cancelled(*_: Any) -> None:
    comfy.model_management.throw_exception_if_processing_interrupted()
