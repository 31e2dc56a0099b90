"""What the rest of the library must know about a line of models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
        prediction_type: `epsilon` or `v_prediction`.
        unet_config: settings of diffusers' UNet2DConditionModel that tensor shapes do not tell.
    """

    name: str
    label: str
    text_width: int
    latent_channels: int
    latent_scale: float
    prediction_type: str
    unet_config: Mapping[str, Any] = field(default_factory=dict)

    def schedule(self) -> NoiseSchedule:
        """Return the noise schedule the family was trained with."""
        return NoiseSchedule.scaled_linear(self.prediction_type)
