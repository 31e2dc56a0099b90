"""Convolutions in LoRA files: their factors are 4-D there, and matrices of d_in = channels * kernel here.

delta = up @ down with down (rank, channels * h * w), reshaped to (d_out, channels, h, w): what the stock
loader does with a LoRA of a convolution (LoCon), so nothing of it is lost.
"""

import re

import torch
from torch import Tensor

_WIDE = re.compile(r"(?:.*\.)?conv(?:[12]|_in|_out)?")  # the other convolutions of a UNet are 1x1
_CONV_TRANSFORMERS = ("sd15",)  # families whose transformers enter and leave through a 1x1 convolution


def kernel_of(module: str, family: str) -> tuple[int, ...]:
    """Return the kernel of a layer: (3, 3), (1, 1), or () where it is linear.

    Args:
        module: diffusers path of a UNet layer.
        family: base model line.
    """
    if _WIDE.fullmatch(module):
        return (3, 3)
    is_projection = module.endswith((".proj_in", ".proj_out")) and family in _CONV_TRANSFORMERS
    return (1, 1) if is_projection or module.endswith(".conv_shortcut") else ()


def as_matrix(module: str, factor: Tensor, *, is_down: bool) -> Tensor:
    """Return a factor as it is in a file as a matrix, an fp32 copy on the CPU.

    Args:
        module: diffusers path of the layer, for the kernel it may have.
        factor: (rows, columns), or 4-D of a convolution.
        is_down: whether it is A, the factor that carries the kernel.

    Raises:
        ValueError: if the factor has a kernel that its layer has not.
    """
    if factor.ndim == 4:
        own = kernel_of(module, "") or (1, 1)
        wanted = own if is_down else (1, 1)
        if tuple(factor.shape[2:]) != wanted:
            raise ValueError(
                f"{module} is a {own[0]}x{own[1]} layer, and its lora_{'down' if is_down else 'up'} must be "
                f"{wanted[0]}x{wanted[1]}, got {tuple(factor.shape)}. Use another file."
            )
    matrix = factor.flatten(1) if factor.ndim == 4 else factor
    return matrix.detach().to("cpu", torch.float32, copy=True).contiguous()


def as_stored(factor: Tensor, kernel: tuple[int, ...], *, is_down: bool) -> Tensor:
    """Return a factor in the shape other programs expect in a file: 4-D where the layer is a convolution."""
    if not kernel:
        return factor
    return factor.reshape(len(factor), -1, *(kernel if is_down else (1, 1)))
