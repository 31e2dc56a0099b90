"""Image files of unknown origin: checked, measured and hashed in one reading, and decoded to tensors."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .picture_kinds import DAMAGED, MAX_FILE_BYTES, TOO_LARGE, UnreadableImageError, open_picture

_MAX_REMEMBERED = 2**16  # files; about half a kilobyte each


class ImageFacts(NamedTuple):
    """What one reading of an image file tells.

    Attributes:
        digest: SHA-256 of the bytes of the file, 32 bytes.
        size: (height, width) in pixels, after the rotation that EXIF asks for.
        is_decoded: whether the file was decoded completely to be sure of it.
        remarks: what its conversion to 8-bit RGB changes, if anything.
    """

    digest: bytes
    size: tuple[int, int]
    is_decoded: bool
    remarks: tuple[str, ...] = ()


_facts: dict[tuple, ImageFacts] = {}  # path, size, time of modification, inode -> what was read


def image_facts(path: Path, *, decode: bool = False) -> ImageFacts:
    """Check an image file and return its hash and size; an unchanged file is read only once.

    The format, the declared size and the end of the file are checked, and the checksums where the format
    has them, so that a file cut off anywhere is found in well under a millisecond. A file with an unusual
    end is decoded to be sure. A file counts as unchanged while its size, its time of modification and its
    inode stay the same.

    Args:
        path: a file in one of the `FORMATS` of `picture_kinds`.
        decode: decode every file completely, which takes longer and is sure.

    Raises:
        UnreadableImageError: if the file is missing, damaged, not an image, too large, or of a kind for
            which there is no rule.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UnreadableImageError(path.name, DAMAGED, type(error).__name__) from error
    version = path, status.st_size, status.st_mtime_ns, status.st_ino
    if version not in _facts or (decode and not _facts[version].is_decoded):
        data = _read_bytes(path)
        with open_picture(data, path.name) as picture:
            size, remarks = picture.size, picture.remarks
            if decode := decode or not picture.is_whole(data):
                picture.rgb()
        if len(_facts) >= _MAX_REMEMBERED:
            del _facts[next(iter(_facts))]  # the oldest
        _facts[version] = ImageFacts(hashlib.sha256(data).digest(), size, decode, remarks)
    return _facts[version]


def read_rgb(path: Path) -> Image.Image:
    """Decode an image file completely, in 8-bit RGB, rotated as its EXIF asks for.

    Raises:
        UnreadableImageError: see `image_facts`.
    """
    with open_picture(_read_bytes(path), path.name) as picture:
        return picture.rgb()


def picture_tensor(path: Path) -> Tensor:
    """Decode an image file completely: (1, 3, height, width), fp32 in [0, 1].

    Raises:
        UnreadableImageError: see `image_facts`.
    """
    pixels = torch.from_numpy(np.array(read_rgb(path)))  # (height, width, 3)
    return pixels.permute(2, 0, 1)[None].float() / 255


def covering_crop(path: Path, size: tuple[int, int]) -> Image.Image:
    """Decode an image, resize it (bilinear) until it just covers `size`, and crop its centre.

    Args:
        path: a file in one of the `FORMATS` of `picture_kinds`.
        size: (height, width) of the result in pixels. An image of that size keeps every pixel.

    Raises:
        UnreadableImageError: see `image_facts`.
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
        UnreadableImageError: see `image_facts`.
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
        if not path.is_file():  # a device has no end, and a pipe may never begin
            raise UnreadableImageError(path.name, DAMAGED, "not a file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UnreadableImageError(path.name, TOO_LARGE, f"more than {MAX_FILE_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(path.name, DAMAGED, type(error).__name__) from error
