"""Image files as the encoder wants them: square, RGB, in [-1, 1]."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # Pillow opens far more, some through programs of the system


def load_image(path: Path, resolution: int) -> Tensor:
    """Read an image: shorter side resized to `resolution` (bilinear), centre cropped, as AlignGuard does.

    Args:
        path: a file of one of `FORMATS`.
        resolution: side of the result in pixels.

    Returns:
        fp32 in [-1, 1], shape (1, 3, resolution, resolution). An image of that size keeps every pixel.

    Raises:
        ValueError: if the file is missing, damaged or no image.
    """
    image = read_rgb(path)
    width, height = image.size
    scale = resolution / min(width, height)
    size = max(resolution, round(width * scale)), max(resolution, round(height * scale))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - resolution) // 2, (size[1] - resolution) // 2
    image = image.crop((left, top, left + resolution, top + resolution))
    pixels = torch.from_numpy(np.array(image))  # (resolution, resolution, 3)
    return pixels.permute(2, 0, 1).unsqueeze(0).float() / 127.5 - 1  # (1, 3, resolution, resolution)


def read_rgb(path: Path) -> Image.Image:
    """Decode an image file completely, turned as its EXIF says, in RGB.

    Raises:
        ValueError: if the file is missing, damaged or no image.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path.name} cannot be read as an image ({type(error).__name__}). "
            f"Replace it by a whole file of {', '.join(FORMATS)}."
        ) from error
