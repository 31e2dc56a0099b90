"""Convolutions in LoRA files: their factors are 4-D in the file, and matrices in memory.

In memory d_in = channels * kernel: delta = up @ down with down (rank, channels * h * w), reshaped to
(d_out, channels, h, w). The stock loader treats a LoRA of a convolution (LoCon) the same way, so nothing is
lost.
"""

import re

import torch
from torch import Tensor

_WIDE = re.compile(r"(?:.*\.)?conv(?:[12]|_in|_out)?")  # the other convolutions of a UNet are 1x1
_CONV_TRANSFORMERS = ("sd15",)  # families whose transformers enter and leave through a 1x1 convolution


def kernel_of(module: str, family: str) -> tuple[int, ...]:
    """Return the kernel of a layer: (3, 3), (1, 1), or () if it is linear.

    Args:
        module: diffusers path of a UNet layer.
        family: base model line.
    """
    if _WIDE.fullmatch(module):
        return (3, 3)
    is_projection = module.endswith((".proj_in", ".proj_out")) and family in _CONV_TRANSFORMERS
    return (1, 1) if is_projection or module.endswith(".conv_shortcut") else ()


def as_matrix(module: str, factor: Tensor, *, is_down: bool) -> Tensor:
    """Return a factor from a file as a matrix, an fp32 copy on the CPU.

    Args:
        module: diffusers path of the layer; it decides which kernel is allowed.
        factor: (rows, columns), or 4-D if the layer is a convolution.
        is_down: whether the factor is A, which carries the kernel.

    Raises:
        ValueError: if the kernel of the factor is not that of its layer.
    """
    if factor.ndim == 4:
        kernel, side = kernel_of(module, "") or (1, 1), "down" if is_down else "up"
        wanted = kernel if is_down else (1, 1)
        if tuple(factor.shape[2:]) != wanted:
            raise ValueError(
                f"{module} is a {kernel[0]}x{kernel[1]} layer, and its lora_{side} must be "
                f"{wanted[0]}x{wanted[1]}, got {tuple(factor.shape)}. Use another file."
            )
    return _matrix(factor.flatten(1) if factor.ndim == 4 else factor)


def with_middle(module: str, middle: Tensor, down: Tensor) -> Tensor:
    """Return the matrix A of a convolution that LoCon splits into two: a 1x1 one, then one inside the rank.

    Args:
        module: diffusers path of the layer.
        middle: (rank, rank, h, w).
        down: (rank, channels, 1, 1).

    Returns:
        (rank, channels * h * w), fp32 on the CPU: two convolutions in a row are one.

    Raises:
        ValueError: if the shapes do not fit each other or the layer.
    """
    rank, kernel = len(down), kernel_of(module, "") or (1, 1)
    fits = (
        down.ndim in (2, 4) and down.shape[2:].numel() == 1 and tuple(middle.shape) == (rank, rank, *kernel)
    )
    if not fits:
        raise ValueError(
            f"{module} must have a lora_mid of {(rank, rank, *kernel)} behind a 1x1 lora_down, got "
            f"{tuple(middle.shape)} and {tuple(down.shape)}. Use another file."
        )
    inner, outer = _matrix(down.flatten(1)), middle.detach().to("cpu", torch.float32)
    return torch.einsum("rshw,si->rihw", outer, inner).flatten(1).contiguous()


def _matrix(factor: Tensor) -> Tensor:
    return factor.detach().to("cpu", torch.float32, copy=True).contiguous()


def as_stored(factor: Tensor, kernel: tuple[int, ...], *, is_down: bool) -> Tensor:
    """Return a factor in the shape that other programs expect in a file: 4-D for a convolution."""
    if not kernel:
        return factor
    return factor.reshape(len(factor), -1, *(kernel if is_down else (1, 1)))
