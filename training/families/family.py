"""What the rest of the library must know about a line of models."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..noise import NoiseSchedule


@dataclass(frozen=True)
class Family:
    """A line of models that share text encoder, latent space and UNet names, whatever their size.

    Args:
        name: key in `FAMILIES` and in the metadata of experts.
        label: name for people.
        text_width: width of the text embeddings the UNet attends to.
        latent_channels: channels of a latent.
        latent_scale: what the VAE's latents are multiplied by before the UNet sees them.
        prediction_type: `epsilon` or `v_prediction`; a model known to differ gets it by `predicting`.
        pooled_width: of the prompt's pooled embedding, which the UNet takes beside its size; 0 for none.
        head_channels: width of an attention head, the number of heads growing with the level; 0 where
            `unet_config` gives a fixed number instead.
        open_clip: whether the text encoder is OpenCLIP's: exact GELU, prompts padded by token 0, and the
            states before the last layer used.
        zero_terminal_snr: whether the last timestep is pure noise, see `rescaled`.
        unet_config: settings of diffusers' UNet2DConditionModel that tensor shapes do not tell.
    """

    name: str
    label: str
    text_width: int
    latent_channels: int
    latent_scale: float
    prediction_type: str
    pooled_width: int = 0
    head_channels: int = 0
    open_clip: bool = False
    zero_terminal_snr: bool = False
    unet_config: Mapping[str, Any] = field(default_factory=dict)

    def schedule(self) -> NoiseSchedule:
        """Return the noise schedule the family was trained with."""
        schedule = NoiseSchedule.scaled_linear(self.prediction_type)
        return rescaled(schedule) if self.zero_terminal_snr else schedule

    def predicting(self, prediction_type: str, *, zero_terminal_snr: bool = False) -> "Family":
        """Return the family as a model of it that is known to predict this; itself where nothing differs."""
        if (prediction_type, zero_terminal_snr) == (self.prediction_type, self.zero_terminal_snr):
            return self
        return replace(self, prediction_type=prediction_type, zero_terminal_snr=zero_terminal_snr)


def rescaled(schedule: NoiseSchedule) -> NoiseSchedule:
    """Return a schedule whose last timestep holds no signal at all, the first one's being kept.

    sqrt(a_t) is shifted and scaled linearly (Lin et al. 2023, arXiv:2305.08891, algorithm 1).

    Raises:
        ValueError: if the model predicts epsilon, which says nothing about the picture at pure noise.
    """
    if schedule.prediction_type == "epsilon":
        raise ValueError(
            "a schedule ending in pure noise needs a model that predicts v, got one that predicts epsilon. "
            "Use the checkpoint with its own sampling settings."
        )
    roots = schedule.alphas_cumprod.double().sqrt()
    first, last = roots[0], roots[-1]
    roots = (roots - last) * first / (first - last)
    return NoiseSchedule(roots.square().float(), schedule.prediction_type)
