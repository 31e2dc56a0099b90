"""A picture file as it is opened: its kind decides how it becomes 8-bit RGB, or that it is refused by name.

There is one rule for each kind. Palettes and grey are looked up exactly. Of 16 bits the upper 8 are used.
Transparent parts are laid on white, because the colours below them are arbitrary. Printing colours (CMYK) are
converted by Pillow's formula, but refused if they come with a profile, which alone gives their meaning; other
profiles are ignored, as ComfyUI ignores them. Animations are refused, because no frame is the picture. Texts
and profiles beside a picture are no damage, however long they are.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from .png_chunks import SIGNATURE, png_parts

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # Pillow opens far more, some through programs of the system
# A file of a few kilobytes from a stranger may claim to hold gigabytes of pixels.
MAX_FILE_BYTES = 256 * 2**20
MAX_PIXELS = 8192 * 8192
MAX_ASPECT = 16  # the shorter side is resized to the resolution, so a long strip would grow without limit

# what a picture is that cannot be read, by name
DAMAGED = "damaged, or no image"
TOO_LARGE = "larger or longer than the limit"
ANIMATED = "an animation"
PRINTED = "in printing colours (CMYK) with a profile of their own"
MATTED = "of 16 bits with one transparent colour"  # Pillow keeps too little of it to find that colour
# what happens to some pictures that can
ON_WHITE = "an image has an alpha channel; transparent parts are laid on white"
CUT_TO_EIGHT = "an image has 16 bits per colour; the upper 8 are used"
WITHOUT_PROFILE = "an image is in printing colours (CMYK), which are converted without a profile"

_OTHER_FORMATS = (  # first bytes, from which byte -> name of a format that is not read
    (b"GIF8", 0, "GIF"),
    (b"II*\0", 0, "TIFF"),
    (b"MM\0*", 0, "TIFF"),
    (b"ftypavi", 4, "AVIF"),
    (b"ftyphei", 4, "HEIC"),
    (b"ftypmif1", 4, "HEIF"),
    (b"jP  ", 4, "JPEG 2000"),
    (b"JXL ", 4, "JPEG XL"),
    (b"\xff\x0a", 0, "JPEG XL"),
    (b"8BPS", 0, "Photoshop"),
    (b"v/1\x01", 0, "OpenEXR"),
    (b"#?RADIANCE", 0, "Radiance HDR"),
    (b"\0\0\1\0", 0, "icon"),
    (b"%PDF", 0, "PDF"),
    (b"<svg", 0, "SVG"),
)
_TURNS = {  # EXIF orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TRANSPOSED = range(5, 9)  # orientations that swap height and width
_PILLOW_ERRORS = (
    OSError,
    UnidentifiedImageError,
    SyntaxError,
    ValueError,
    EOFError,  # a PNG that stops between chunks
    struct.error,
    Image.DecompressionBombError,
)
_EXIF_ERRORS = (*_PILLOW_ERRORS, KeyError, IndexError, TypeError)


class UnreadableImageError(ValueError):
    """A picture that cannot be used.

    Attributes:
        kind: what it is, in one of a few phrases that can be counted.
        reason: the same, exactly.
    """

    def __init__(self, name: str, kind: str, reason: str = "") -> None:
        self.kind, self.reason = kind, reason or kind
        super().__init__(
            f"{name} cannot be read as an image ({self.reason}). Replace it with a complete "
            f"{', '.join(FORMATS)} file of at most {MAX_PIXELS} pixels whose sides differ by a factor of at "
            f"most {MAX_ASPECT}."
        )


class OpenPicture(NamedTuple):
    """An open image file, not yet decoded.

    Attributes:
        image: as Pillow opened it.
        depth: bits per channel of a PNG, else 8.
        orientation: of EXIF; 1 if there is none, or none that can be read.
    """

    image: Image.Image
    depth: int
    orientation: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the upright picture."""
        return self.image.size if self.orientation in _TRANSPOSED else self.image.size[::-1]

    @property
    def has_alpha(self) -> bool:
        """Whether parts may be transparent, also by one colour that counts as transparent."""
        return self.image.mode in ("LA", "PA", "RGBA") or "transparency" in self.image.info

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the conversion changes."""
        holds = {
            ON_WHITE: self.has_alpha,
            CUT_TO_EIGHT: self.depth == 16,
            WITHOUT_PROFILE: self.image.mode == "CMYK",
        }
        return tuple(remark for remark, is_true in holds.items() if is_true)

    def is_whole(self, data: bytes) -> bool:
        """Tell from header and end whether the file is whole; where False, only decoding can tell."""
        if self.image.format == "WEBP":
            return int.from_bytes(data[4:8], "little") + 8 <= len(data)
        # the chunks of a PNG were all checked; a JPEG has an end marker
        return self.image.format == "PNG" or (self.image.format == "JPEG" and data.endswith(b"\xff\xd9"))

    def rgb(self) -> Image.Image:
        """Decode the image, in 8-bit RGB, upright."""
        image = _eight_bit_grey(self.image) if self.image.mode.startswith("I") else self.image
        if self.depth < 8 and isinstance(key := image.info.get("transparency"), int) and image.mode != "P":
            image.info["transparency"] = key * 255 // ((1 << self.depth) - 1)  # as Pillow scales the pixels
        if self.has_alpha and not self._has_empty_alpha():
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        turn = _TURNS.get(self.orientation)
        image = image.convert("RGB")
        return image if turn is None else image.transpose(turn)

    def _has_empty_alpha(self) -> bool:
        """Return whether the fourth channel of a BMP is only padding, as some programs write it."""
        return self.image.format == "BMP" and self.image.getextrema()[-1] == (0, 0)


def _eight_bit_grey(image: Image.Image) -> Image.Image:
    values = np.asarray(image)  # 0 to 65535; Pillow's own conversion makes everything above 255 white
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    if (key := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey


@contextmanager
def open_picture(data: bytes, name: str) -> Iterator[OpenPicture]:
    """Open an image of a sensible declared size.

    Args:
        data: the bytes of the file.
        name: of the file, for errors.

    Raises:
        UnreadableImageError: if it cannot be opened or, within the context, decoded.
    """
    for start, at, other in _OTHER_FORMATS:
        if data.startswith(start, at):
            raise UnreadableImageError(name, f"a file of the kind {other}")
    try:
        depth, num_frames, may_be_turned = 8, 1, True
        if data.startswith(SIGNATURE):
            data, depth, num_frames, may_be_turned = png_parts(data)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            num_frames = getattr(image, "n_frames", 1) if image.format == "WEBP" else num_frames
            _check(image, name, depth, num_frames)
            yield OpenPicture(image, depth, _orientation(image) if may_be_turned else 1)
    except UnreadableImageError:
        raise
    except _PILLOW_ERRORS as error:
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise UnreadableImageError(name, DAMAGED, reason) from error


def _check(image: Image.Image, name: str, depth: int, num_frames: int) -> None:
    """Refuse what is too large, and what no rule converts faithfully."""
    if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_ASPECT * min(image.size):
        raise UnreadableImageError(name, TOO_LARGE, f"{image.width} x {image.height} pixels")
    if num_frames > 1:
        raise UnreadableImageError(name, ANIMATED, f"{ANIMATED} of {num_frames} frames; save one of them")
    if image.mode == "CMYK" and image.info.get("icc_profile"):
        raise UnreadableImageError(name, PRINTED, f"{PRINTED}; save it in RGB")
    if image.mode == "RGB" and depth == 16 and "transparency" in image.info:
        raise UnreadableImageError(name, MATTED, f"{MATTED}; save it with an alpha channel")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; EXIF that cannot be read is no damage of the picture."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except _EXIF_ERRORS:
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1
