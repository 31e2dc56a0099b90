"""Image files as the encoder wants them: of one size, RGB, in [-1, 1]."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # Pillow opens far more, some through programs of the system
# Pairs come from strangers: a file of a few kilobytes may claim to be gigabytes of pixels.
MAX_FILE_BYTES = 256 * 2**20
MAX_PIXELS = 8192 * 8192
_TURNED = range(5, 9)  # EXIF orientations in which height and width change places
MAX_ASPECT = 16  # the shorter side is resized to the resolution, so a long strip would grow without limit


# EOFError: a PNG that stops between chunks
_PILLOW_ERRORS = (
    OSError,
    UnidentifiedImageError,
    SyntaxError,
    ValueError,
    EOFError,
    Image.DecompressionBombError,
)


def load_image(path: Path, size: tuple[int, int], *, mirrored: bool = False) -> Tensor:
    """Read an image: resized (bilinear) until it just covers `size`, centre cropped, as AlignGuard does.

    Args:
        path: a file of one of `FORMATS`.
        size: (height, width) of the result in pixels.
        mirrored: left and right exchanged.

    Returns:
        fp32 in [-1, 1], shape (1, 3, *size). An image of that size keeps every pixel.

    Raises:
        ValueError: if the file is missing, damaged or no image.
    """
    image = read_rgb(path)
    height, width = size
    scale = max(height / image.height, width / image.width)
    covering = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    if covering != image.size:
        image = image.resize(covering, Image.Resampling.BILINEAR)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    image = image.crop((left, top, left + width, top + height))
    if mirrored:
        image = ImageOps.mirror(image)
    pixels = torch.from_numpy(np.array(image))  # (height, width, 3)
    return pixels.permute(2, 0, 1).unsqueeze(0).float() / 127.5 - 1  # (1, 3, height, width)


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) in pixels, turned as its EXIF says, without decoding the image.

    Raises:
        ValueError: if the file is missing, damaged, no image or too large.
    """
    with _opened(_read_bytes(path), path.name) as image:
        if image.getexif().get(ExifTags.Base.Orientation) in _TURNED:
            return image.width, image.height
        return image.height, image.width


def read_rgb(path: Path) -> Image.Image:
    """Decode an image file completely, turned as its EXIF says, in RGB.

    Raises:
        ValueError: if the file is missing, damaged, no image or too large.
    """
    return _decoded(_read_bytes(path), path.name)


def checked_digest(path: Path, *, decode: bool = False) -> bytes:
    """Check an image file and return the sha256 of its bytes.

    The format, the declared size and the end of the file are checked, and the checksums where the format
    has them, so that a file cut off anywhere is found in well under a millisecond. A file that ends
    oddly is decoded to be sure.

    Args:
        path: the file.
        decode: decode it in any case; some milliseconds for a picture of 512 x 512.

    Raises:
        ValueError: if the file is missing, damaged, no image or too large.
    """
    data = _read_bytes(path)
    if decode or not _is_whole(data, path.name):
        _decoded(data, path.name)
    return hashlib.sha256(data).digest()


def _read_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(_refusal(path.name, f"more than {MAX_FILE_BYTES} bytes"))
        return path.read_bytes()
    except OSError as error:
        raise ValueError(_refusal(path.name, type(error).__name__)) from error


def _is_whole(data: bytes, name: str) -> bool:
    """Look at header and end; False means that only decoding can tell."""
    with _opened(data, name) as image:
        if image.format == "PNG":
            image.verify()  # the checksum of every chunk; raises where one is wrong or missing
            return True
        if image.format == "WEBP":
            return int.from_bytes(data[4:8], "little") + 8 <= len(data)
        return image.format == "JPEG" and data.endswith(b"\xff\xd9")  # the end marker


def _decoded(data: bytes, name: str) -> Image.Image:
    with _opened(data, name) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """Open an image whose declared size is sensible; what Pillow says against it becomes a ValueError."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_ASPECT * min(image.size):
                raise ValueError(f"{image.width} x {image.height} pixels")
            yield image
    except _PILLOW_ERRORS as error:
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise ValueError(_refusal(name, reason)) from error


def _refusal(name: str, reason: str) -> str:
    return (
        f"{name} cannot be read as an image ({reason}). Replace it by a whole file of {', '.join(FORMATS)}, "
        f"of at most {MAX_PIXELS} pixels and sides of at most {MAX_ASPECT} : 1."
    )


def eight_bit(picture: Tensor) -> Tensor:
    """Round a picture in [0, 1] to what a file holds, so that a judge sees what is stored; on the CPU."""
    return (picture.detach().to("cpu", torch.float32).clamp(0, 1) * 255).round() / 255


def pillow_images(images: Tensor) -> list[Image.Image]:
    """Return pictures (n, 3, h, w) in [0, 1] as 8-bit RGB."""
    pixels = (images * 255).round().byte().movedim(1, -1).contiguous().numpy()  # (n, h, w, 3)
    return [Image.fromarray(each) for each in pixels]
