"""Facts about a model family: its text encoders, latent space, prediction type and noise schedule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ..rules.categories import FAMILY_NAMES
from .noise import NoiseSchedule


@dataclass(frozen=True)
class ClipKind:
    """One CLIP text encoder of a family.

    Args:
        width: size of its hidden states.
        prefixes: prefixes its tensors may have in a checkpoint; a checkpoint uses one of them.
        folder: its name in a diffusers folder.
        open_clip: True for OpenCLIP: exact GELU, prompts padded with token 0, its own tensor names.
        spare_layer: whether a checkpoint holds one layer more than is used (diffusers leaves it out).
        penultimate: whether the UNet sees the hidden states before the last layer, without the final norm.
        pooled: whether the UNet also takes the projected embedding of the whole prompt.
    """

    width: int
    prefixes: tuple[str, ...]
    folder: str = "text_encoder"
    open_clip: bool = False
    spare_layer: bool = False
    penultimate: bool = False
    pooled: bool = False


@dataclass(frozen=True)
class Family:
    """Models of any size that share text encoders, latent space and UNet tensor names.

    Args:
        name: key in `FAMILIES`, in `FAMILY_NAMES` and in the metadata of experts.
        text_encoders: encoders whose hidden states are concatenated in this order.
        latent_channels: number of channels of a latent.
        latent_scale: factor between the VAE's latents and those the UNet sees.
        prediction_type: `epsilon` or `v_prediction`; `predicting` changes it for a model known to differ.
        head_channels: width of an attention head where the number of heads grows with the level; 0 where
            `unet_config` fixes the number of heads.
        zero_terminal_snr: whether the last timestep is pure noise, see `rescaled`.
        unet_config: settings of diffusers' UNet2DConditionModel that tensor shapes do not determine.
        read_prediction: returns prediction type and zero terminal SNR from the tensors of a checkpoint; None
            if all models of the family agree.
    """

    name: str
    text_encoders: tuple[ClipKind, ...]
    latent_channels: int
    latent_scale: float
    prediction_type: str
    head_channels: int = 0
    zero_terminal_snr: bool = False
    unet_config: Mapping[str, Any] = field(default_factory=dict)
    read_prediction: Callable[[Mapping[str, Tensor]], tuple[str, bool]] | None = None

    @property
    def label(self) -> str:
        """Name shown to people."""
        return FAMILY_NAMES[self.name]

    @property
    def text_width(self) -> int:
        """Width of the text embeddings that the UNet attends to."""
        return sum(kind.width for kind in self.text_encoders)

    @property
    def pooled_width(self) -> int:
        """Width of the pooled prompt embedding that the UNet takes; 0 if it takes none."""
        return sum(kind.width for kind in self.text_encoders if kind.pooled)

    def schedule(self) -> NoiseSchedule:
        """Return the noise schedule the family was trained with."""
        schedule = NoiseSchedule.scaled_linear(self.prediction_type)
        return rescaled(schedule) if self.zero_terminal_snr else schedule

    def predicting(self, prediction_type: str, *, zero_terminal_snr: bool = False) -> "Family":
        """Return the family with another prediction type; the family itself if nothing differs."""
        if (prediction_type, zero_terminal_snr) == (self.prediction_type, self.zero_terminal_snr):
            return self
        return replace(self, prediction_type=prediction_type, zero_terminal_snr=zero_terminal_snr)

    def of_checkpoint(self, tensors: Mapping[str, Tensor]) -> "Family":
        """Return the family with the prediction type of the model in a checkpoint.

        Raises:
            ValueError: if the model predicts a quantity that cannot be trained.
        """
        if self.read_prediction is None:
            return self
        prediction_type, zero_terminal_snr = self.read_prediction(tensors)
        return self.predicting(prediction_type, zero_terminal_snr=zero_terminal_snr)


def rescaled(schedule: NoiseSchedule) -> NoiseSchedule:
    """Return a schedule with zero signal at the last timestep and the same first timestep.

    sqrt(a_t) is shifted and scaled linearly (Lin et al. 2023, arXiv:2305.08891, algorithm 1).

    Raises:
        ValueError: if the model predicts epsilon, which at pure noise holds no information about the image.
    """
    if schedule.prediction_type == "epsilon":
        raise ValueError(
            "a schedule ending in pure noise needs a model that predicts v, but this one predicts epsilon. "
            "Use the checkpoint with its own sampling settings."
        )
    roots = schedule.alphas_cumprod.double().sqrt()
    first, last = roots[0], roots[-1]
    roots = (roots - last) * first / (first - last)
    return NoiseSchedule(roots.square().float(), schedule.prediction_type)
