"""The mini model under the names of the original Stable Diffusion code, which checkpoint files use."""

from collections.abc import Mapping

from torch import Tensor

from ..models.native_unet import Layout, module_names, native_name

LAYOUT = Layout(channels=(320, 320), attention=(True, True), layers=1, in_channels=4, out_channels=4)


def native_unet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a wide mini UNet from diffusers' names to `input_blocks.*` and so on."""
    table = module_names(LAYOUT)
    return {native_name(name, table): tensor for name, tensor in state.items()}


def native_autoencoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename an AutoencoderTiny to TAESD's names; there the decoder's first layer is the clamp."""
    return {_autoencoder_name(name): tensor for name, tensor in state.items()}


def _autoencoder_name(name: str) -> str:
    part, _, number, rest = name.split(".", 3)
    shift = 1 if part == "decoder" else 0
    return f"taesd_{part}.{int(number) + shift}.{rest}"
