"""What the rest of the library must know about a line of models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from .noise import NoiseSchedule


@dataclass(frozen=True)
class ClipKind:
    """One text encoder of a family.

    Args:
        width: of its states.
        prefixes: before its tensors in a checkpoint, one of them.
        folder: its name in a folder of diffusers.
        open_clip: whether it is OpenCLIP's: exact GELU, prompts padded by token 0, names of its own.
        spare_layer: whether a checkpoint holds one layer more than is used (diffusers leaves it out).
        penultimate: whether the UNet sees the states before the last layer, without the final norm.
        pooled: whether the UNet takes the projected embedding of the whole prompt too.
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
    """A line of models that share text encoders, latent space and UNet names, whatever their size.

    Args:
        name: key in `FAMILIES` and in the metadata of experts.
        label: name for people.
        text_encoders: their states stand side by side, in this order.
        latent_channels: channels of a latent.
        latent_scale: what the VAE's latents are multiplied by before the UNet sees them.
        prediction_type: `epsilon` or `v_prediction`; a model known to differ gets it by `predicting`.
        head_channels: width of an attention head, the number of heads growing with the level; 0 where
            `unet_config` gives a fixed number instead.
        zero_terminal_snr: whether the last timestep is pure noise, see `rescaled`.
        unet_config: settings of diffusers' UNet2DConditionModel that tensor shapes do not tell.
        read_prediction: reads off the tensors of a checkpoint what it predicts and whether its last
            timestep is pure noise; None where all are alike.
    """

    name: str
    label: str
    text_encoders: tuple[ClipKind, ...]
    latent_channels: int
    latent_scale: float
    prediction_type: str
    head_channels: int = 0
    zero_terminal_snr: bool = False
    unet_config: Mapping[str, Any] = field(default_factory=dict)
    read_prediction: Callable[[Mapping[str, Tensor]], tuple[str, bool]] | None = None

    @property
    def text_width(self) -> int:
        """Width of the text embeddings the UNet attends to."""
        return sum(kind.width for kind in self.text_encoders)

    @property
    def pooled_width(self) -> int:
        """Width of the prompt's pooled embedding that the UNet takes beside its size; 0 for none."""
        return sum(kind.width for kind in self.text_encoders if kind.pooled)

    def schedule(self) -> NoiseSchedule:
        """Return the noise schedule the family was trained with."""
        schedule = NoiseSchedule.scaled_linear(self.prediction_type)
        return rescaled(schedule) if self.zero_terminal_snr else schedule

    def predicting(self, prediction_type: str, *, zero_terminal_snr: bool = False) -> "Family":
        """Return the family as a model of it that is known to predict this; itself where nothing differs."""
        if (prediction_type, zero_terminal_snr) == (self.prediction_type, self.zero_terminal_snr):
            return self
        return replace(self, prediction_type=prediction_type, zero_terminal_snr=zero_terminal_snr)

    def of_checkpoint(self, tensors: Mapping[str, Tensor]) -> "Family":
        """Return the family as the model in a checkpoint predicts.

        Raises:
            ValueError: if it predicts what cannot be trained here.
        """
        if self.read_prediction is None:
            return self
        prediction_type, zero_terminal_snr = self.read_prediction(tensors)
        return self.predicting(prediction_type, zero_terminal_snr=zero_terminal_snr)


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
