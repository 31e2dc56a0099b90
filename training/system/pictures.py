"""Image files of unknown origin: checked, measured and hashed in one reading, and decoded to tensors."""

import hashlib
import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # Pillow opens far more, some through programs of the system
# A file of a few kilobytes from a stranger may claim to hold gigabytes of pixels.
MAX_FILE_BYTES = 256 * 2**20
MAX_PIXELS = 8192 * 8192
MAX_ASPECT = 16  # the shorter side is resized to the resolution, so a long strip would grow without limit

_TRANSPOSED = range(5, 9)  # EXIF orientations that swap height and width
_PNG_ORIENTATION = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")  # chunks that may hold one
_MAX_REMEMBERED = 2**16  # files; about half a kilobyte each

_PILLOW_ERRORS = (
    OSError,
    UnidentifiedImageError,
    SyntaxError,
    ValueError,
    EOFError,  # a PNG that stops between chunks
    struct.error,  # EXIF shorter than its own header
    Image.DecompressionBombError,
)


class ImageFacts(NamedTuple):
    """What one reading of an image file tells.

    Attributes:
        digest: SHA-256 of the bytes of the file, 32 bytes.
        size: (height, width) in pixels, after the rotation that EXIF asks for.
        is_decoded: whether the file was decoded completely to be sure of it.
    """

    digest: bytes
    size: tuple[int, int]
    is_decoded: bool


_facts: dict[tuple, ImageFacts] = {}  # path, size, time of modification, inode -> what was read


def image_facts(path: Path, *, decode: bool = False) -> ImageFacts:
    """Check an image file and return its hash and size; an unchanged file is read only once.

    The format, the declared size and the end of the file are checked, and the checksums where the format
    has them, so that a file cut off anywhere is found in well under a millisecond. A file with an unusual
    end is decoded to be sure. A file counts as unchanged while its size, its time of modification and its
    inode stay the same.

    Args:
        path: a file in one of `FORMATS`.
        decode: decode every file completely, which takes longer and is sure.

    Raises:
        ValueError: if the file is missing, damaged, not an image, or too large.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ValueError(_refusal(path.name, type(error).__name__)) from error
    version = path, status.st_size, status.st_mtime_ns, status.st_ino
    if version not in _facts or (decode and not _facts[version].is_decoded):
        data = _read_bytes(path)
        if decode := decode or not _is_whole(data, path.name):
            _decoded(data, path.name)
        if len(_facts) >= _MAX_REMEMBERED:
            del _facts[next(iter(_facts))]  # the oldest
        _facts[version] = ImageFacts(hashlib.sha256(data).digest(), _size(data, path.name), decode)
    return _facts[version]


def _is_whole(data: bytes, name: str) -> bool:
    """Tell from header and end whether a file is whole; where False, only decoding can tell."""
    with _opened(data, name) as image:
        if image.format == "PNG":
            image.verify()  # the checksum of every chunk; raises where one is wrong or missing
            return True
        if image.format == "WEBP":
            return int.from_bytes(data[4:8], "little") + 8 <= len(data)
        return image.format == "JPEG" and data.endswith(b"\xff\xd9")  # the end marker


def _size(data: bytes, name: str) -> tuple[int, int]:
    """Return (height, width) after rotation, without decoding a PNG only to learn that it has no EXIF."""
    with _opened(data, name) as image:
        has_exif = image.format != "PNG" or any(key in data for key in _PNG_ORIENTATION)
        if has_exif and image.getexif().get(ExifTags.Base.Orientation) in _TRANSPOSED:
            return image.width, image.height
        return image.height, image.width


def read_rgb(path: Path) -> Image.Image:
    """Decode an image file completely, in RGB, rotated as its EXIF asks for.

    Raises:
        ValueError: if the file is missing, damaged, not an image, or too large.
    """
    return _decoded(_read_bytes(path), path.name)


def covering_crop(path: Path, size: tuple[int, int]) -> Image.Image:
    """Decode an image, resize it (bilinear) until it just covers `size`, and crop its centre.

    Args:
        path: a file in one of `FORMATS`.
        size: (height, width) of the result in pixels. An image of that size keeps every pixel.

    Raises:
        ValueError: see `read_rgb`.
    """
    image = read_rgb(path)
    height, width = size
    scale = max(height / image.height, width / image.width)
    covering = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    if covering != image.size:
        image = image.resize(covering, Image.Resampling.BILINEAR)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def image_tensor(image: Image.Image, *, mirrored: bool = False) -> Tensor:
    """Return an RGB image as fp32 in [-1, 1], shape (1, 3, height, width).

    Args:
        image: the image.
        mirrored: swap left and right.
    """
    pixels = torch.from_numpy(np.array(ImageOps.mirror(image) if mirrored else image))  # (height, width, 3)
    return pixels.permute(2, 0, 1).unsqueeze(0).float() / 127.5 - 1  # (1, 3, height, width)


def load_image(path: Path, size: tuple[int, int], *, mirrored: bool = False) -> Tensor:
    """Read an image file at a size: `covering_crop`, then `image_tensor`.

    Returns:
        fp32 in [-1, 1], shape (1, 3, *size).

    Raises:
        ValueError: see `read_rgb`.
    """
    return image_tensor(covering_crop(path, size), mirrored=mirrored)


def eight_bit(picture: Tensor) -> Tensor:
    """Round a picture in [0, 1] to the values that an 8-bit file stores; the result is on the CPU."""
    return (picture.detach().to("cpu", torch.float32).clamp(0, 1) * 255).round() / 255


def pillow_images(images: Tensor) -> list[Image.Image]:
    """Return pictures (n, 3, h, w) in [0, 1] as 8-bit RGB images."""
    pixels = (images * 255).round().byte().movedim(1, -1).contiguous().numpy()  # (n, h, w, 3)
    return [Image.fromarray(picture) for picture in pixels]


def _read_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(_refusal(path.name, f"more than {MAX_FILE_BYTES} bytes"))
        return path.read_bytes()
    except OSError as error:
        raise ValueError(_refusal(path.name, type(error).__name__)) from error


def _decoded(data: bytes, name: str) -> Image.Image:
    with _opened(data, name) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """Open an image of a sensible declared size; every error of Pillow becomes a ValueError."""
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
        f"{name} cannot be read as an image ({reason}). Replace it with a complete {', '.join(FORMATS)} file "
        f"of at most {MAX_PIXELS} pixels whose sides differ by a factor of at most {MAX_ASPECT}."
    )
