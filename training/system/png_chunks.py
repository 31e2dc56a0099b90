"""The chunks of a PNG: every checksum is compared, and what is no part of the picture is left out.

Pillow refuses a whole picture because of a long text or profile beside it, such as the graph that drew it. Of
the texts, only those that may say how the picture is turned are kept.
"""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PICTURE = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf")
_END = b"IEND"
_TEXTS = {b"tEXt": 0, b"zTXt": 1, b"iTXt": 2}  # chunk -> bytes between the key and the rest
_TURNING_TEXTS = (b"Raw profile type exif", b"XML:com.adobe.xmp")
_MAX_TEXT_BYTES = 2**20  # Pillow's own limit; a text with an orientation has some kilobytes


class PngParts(NamedTuple):
    """What a PNG is made of.

    Attributes:
        data: the PNG without the chunks that Pillow does not need.
        depth: bits per channel: 1, 2, 4, 8 or 16.
        num_frames: 1, or the number of frames of an animation.
        may_be_turned: whether a chunk may hold an EXIF orientation.
    """

    data: bytes
    depth: int
    num_frames: int
    may_be_turned: bool


def png_parts(data: bytes) -> PngParts:
    """Read the chunks of a PNG up to its end.

    Raises:
        ValueError: if the PNG is cut off or a checksum is wrong, with the name of the chunk.
    """
    kept, num_frames, may_be_turned = [SIGNATURE], 1, False
    for kind, body, whole in _chunks(data):
        turns = kind == b"eXIf" or (kind in _TEXTS and _is_turning_text(kind, body))
        if kind == b"acTL":
            num_frames = max(int.from_bytes(body[:4], "big"), 1)
        if turns or kind in _PICTURE or kind == _END:
            kept.append(whole)
        may_be_turned |= turns
    pixels = data if sum(map(len, kept)) == len(data) else b"".join(kept)
    return PngParts(pixels, data[24] if len(data) > 24 else 8, num_frames, may_be_turned)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Yield kind, body and whole of each chunk."""
    view, at, kind = memoryview(data), len(SIGNATURE), b""
    while kind != _END:
        size, kind = int.from_bytes(view[at : at + 4], "big"), bytes(view[at + 4 : at + 8])
        end = at + 12 + size  # length, kind, body, checksum
        name = kind.decode("ascii", "replace") or "IEND"
        if end > len(data):
            raise ValueError(f"cut off in its chunk {name}")
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise ValueError(f"the checksum of its chunk {name} is wrong")
        yield kind, view[at + 8 : end - 4], view[at:end]
        at = end


def _is_turning_text(kind: bytes, body: memoryview) -> bool:
    """Return whether a text may hold an orientation and is short enough for Pillow."""
    key, _, rest = bytes(body[: _MAX_TEXT_BYTES + 1]).partition(b"\0")
    if key not in _TURNING_TEXTS or len(body) > _MAX_TEXT_BYTES:
        return False
    is_compressed = kind == b"zTXt" or (kind == b"iTXt" and rest[:1] == b"\1")
    if not is_compressed:
        return True
    packed = rest[_TEXTS[kind] :]
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(packed.split(b"\0", 2)[-1] if kind == b"iTXt" else packed, _MAX_TEXT_BYTES)
    except zlib.error:
        return False
    return not inflater.unconsumed_tail
