"""A base model loaded from disk for the command line: UNet, autoencoder and text encoder, offline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..system.tensors import WithoutPrefix, open_tensors
from . import autoencoder, identify
from .autoencoder import Autoencoder, autoencoder_from_native
from .conditioning import Conditioning
from .diffusers_folder import read_folder
from .family import Family
from .hashes import weights_hash
from .native_unet import CHECKPOINT_PREFIX, unet_from_native
from .noise import NoiseSchedule
from .text_encoder import TextEncoder, text_encoder_from_native

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


@dataclass(eq=False)
class BaseModel:
    """A loaded base model; to free the encoders before training, drop it and keep `unet`.

    Args:
        name: name of the file or folder, without suffix.
        family: model family.
        unet: frozen UNet of diffusers.
        autoencoder: encodes pictures to latents, fp32.
        text_encoder: encodes prompts to embeddings, fp32.
    """

    name: str
    family: Family
    unet: UNet2DConditionModel
    autoencoder: Autoencoder
    text_encoder: TextEncoder

    @property
    def schedule(self) -> NoiseSchedule:
        """Noise schedule of the family."""
        return self.family.schedule()

    @cached_property
    def content_hash(self) -> str:
        """Hash of the UNet's weights, see `weights_hash`; read it before an adapter is attached."""
        return weights_hash(self.unet)

    @cached_property
    def encoder_id(self) -> str:
        """Hash of the encoders' weights, with the latents' scale and shift, for cache keys."""
        weights = weights_hash(self.autoencoder.model, *self.text_encoder.models)
        return f"{weights} {self.autoencoder.multiply!r} {self.autoencoder.add!r}"

    def encode_image(self, image: Tensor) -> Tensor:
        """Return latents as the UNet sees them, see `Autoencoder.encode`."""
        return self.autoencoder.encode(image)

    def encode_prompt(self, prompt: str) -> Conditioning:
        """Return a prompt as the UNet takes it, one row, see `TextEncoder.encode`."""
        return self.text_encoder.encode(prompt)

    def warn_of_long(self, prompts: Iterable[str]) -> None:
        """Log one warning with the number of prompts that are cut, see `TextEncoder.warn_of_long`."""
        self.text_encoder.warn_of_long(prompts)

    def to(self, device: torch.device | str) -> BaseModel:
        """Move all models to a device and return self."""
        self.unet.to(device)
        return self.encoders_to(device)

    def encoders_to(self, device: torch.device | str) -> BaseModel:
        """Move all models but the UNet to a device and return self."""
        self.autoencoder.model.to(device)
        return self._text_encoder_to(device)

    def unet_alone_to(self, device: torch.device | str) -> BaseModel:
        """Move the UNet to a device after all other models left it, and return self."""
        self.encoders_to("cpu")
        self.unet.to(device)
        return self

    def text_encoder_alone_to(self, device: torch.device | str) -> BaseModel:
        """Move the text encoder to a device after all other models left it, and return self."""
        self.to("cpu")
        return self._text_encoder_to(device)

    def all_but_text_encoder_to(self, device: torch.device | str) -> BaseModel:
        """Move UNet and autoencoder to a device after the text encoder left it, and return self."""
        self._text_encoder_to("cpu")
        self.autoencoder.model.to(device)
        self.unet.to(device)
        return self

    def _text_encoder_to(self, device: torch.device | str) -> BaseModel:
        for model in self.text_encoder.models:
            model.to(device)
        return self


def load_base(path: Path, *, dtype: torch.dtype | None = torch.float32) -> BaseModel:
    """Load a base model from a single-file checkpoint (.safetensors) or a diffusers folder.

    Nothing is downloaded, and no pickle is opened.

    Args:
        path: the file or folder.
        dtype: type of the UNet; None keeps the type it is stored in. The encoders are always fp32.

    Raises:
        FileNotFoundError: if the path does not exist, or this machine has no CLIP vocabulary.
        ValueError: if the model is a pickle, damaged, incomplete or of a family that cannot be trained.
    """
    if path.is_dir():
        return BaseModel(path.name, *read_folder(path, dtype))
    with open_tensors(path) as tensors:
        unet_state = WithoutPrefix(tensors, CHECKPOINT_PREFIX)
        if not len(unet_state):
            raise ValueError(_no_checkpoint(path, tensors))
        try:
            family = identify(unet_state).of_checkpoint(tensors)
            return BaseModel(
                path.stem,
                family,
                unet_from_native(unet_state, family, dtype=dtype),
                autoencoder_from_native(WithoutPrefix(tensors, autoencoder.CHECKPOINT_PREFIX), family),
                text_encoder_from_native(tensors, family),
            )
        except ValueError as error:
            raise ValueError(f"{path.name} cannot be the base model: {error}") from error


def _no_checkpoint(path: Path, tensors: Mapping[str, Tensor]) -> str:
    example = f", such as {next(iter(tensors))}" if len(tensors) else ""
    return (
        f"{path.name} is not a checkpoint: none of its {len(tensors)} tensors{example} starts with "
        f"{CHECKPOINT_PREFIX}. Choose the base model itself, not a LoRA, VAE or text encoder."
    )
