"""Every kind of picture becomes 8-bit RGB by its rule, or is refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from training.system.picture_kinds import (
    ANIMATED,
    CUT_TO_EIGHT,
    ON_WHITE,
    PRINTED,
    WITHOUT_PROFILE,
    UnreadableImageError,
)
from training.system.pictures import image_facts, read_rgb

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOUR = Image.merge("RGB", [Image.fromarray(plane) for plane in (RAMP, RAMP.T.copy(), 255 - RAMP)])


def pixels(path):
    return np.asarray(read_rgb(path)).tolist()


def png(path, colour_type, depth, rows, **chunks):
    """Write a PNG byte by byte, for what Pillow cannot write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    width = len(rows[0]) * 8 // (depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type])
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    inner = b"".join(chunk(kind.encode(), data) for kind, data in chunks.items())
    parts = chunk(b"IHDR", header) + inner + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def saved(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "LA", "RGBA"])
def test_a_png_of_every_mode_keeps_its_colours(tmp_path, mode):
    image = COLOUR.quantize(16) if mode == "P" else COLOUR.convert(mode)
    assert pixels(saved(tmp_path / "a.png", image)) == np.asarray(image.convert("RGB")).tolist()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_bmp_of_every_mode_keeps_its_colours(tmp_path, mode):
    image = COLOUR.quantize(16) if mode == "P" else COLOUR.convert(mode)
    assert pixels(saved(tmp_path / "a.bmp", image)) == np.asarray(image.convert("RGB")).tolist()


def test_of_sixteen_bits_the_upper_eight_are_used(tmp_path):
    grey = saved(tmp_path / "grey.png", Image.fromarray(RAMP.astype(np.uint16) * 256 + 77))
    assert pixels(grey) == np.stack([RAMP] * 3, axis=-1).tolist()
    assert image_facts(grey).remarks == (CUT_TO_EIGHT,)
    rows = [[byte for value in row for byte in (value, 200, 255 - value, 9, 7, 1)] for row in RAMP.tolist()]
    colour = png(tmp_path / "colour.png", 2, 16, rows)
    assert pixels(colour) == [[[value, 255 - value, 7] for value in row] for row in RAMP.tolist()]
    assert image_facts(colour).remarks == (CUT_TO_EIGHT,)


HALF = [[[200, 0, 100, alpha] for alpha in (0, 255, 51)]]
ON_PAPER = [[[255, 255, 255], [200, 0, 100], [244, 204, 224]]]


def test_transparent_parts_are_laid_on_white_whatever_colour_they_hide(tmp_path):
    image = Image.fromarray(np.array(HALF, dtype=np.uint8), "RGBA")
    for ending in ("png", "webp"):
        path = saved(tmp_path / f"a.{ending}", image, lossless=True, exact=True)
        assert pixels(path) == ON_PAPER
        assert image_facts(path).remarks == (ON_WHITE,)
    grey = Image.fromarray(np.array([[[0, 0], [9, 255]]], dtype=np.uint8), "LA")
    assert pixels(saved(tmp_path / "grey.png", grey)) == [[[255] * 3, [9] * 3]]


@pytest.mark.parametrize(
    ("colour_type", "depth", "rows", "chunks", "expected"),
    [
        (0, 1, [[0b01000000]], {"tRNS": b"\0\1"}, [0, 255]),  # of eight pixels, the first two
        (0, 2, [[0b00011011]], {"tRNS": b"\0\1"}, [0, 255, 170, 255]),
        (0, 8, [[7, 9]], {"tRNS": b"\0\7"}, [255, 9]),
        (0, 16, [[7, 1, 7, 2]], {"tRNS": b"\7\1"}, [255, 7]),
        (3, 8, [[0, 1]], {"PLTE": b"\1\1\1\2\2\2", "tRNS": b"\0"}, [255, 2]),
    ],
)
def test_a_colour_that_counts_as_transparent_becomes_white(
    tmp_path, colour_type, depth, rows, chunks, expected
):
    path = png(tmp_path / "a.png", colour_type, depth, rows, **chunks)
    assert [pixel[0] for pixel in pixels(path)[0]][: len(expected)] == expected
    assert ON_WHITE in image_facts(path).remarks


def test_a_bmp_whose_fourth_channel_is_padding_keeps_its_colours(tmp_path):
    image = Image.fromarray(np.array([[[9, 8, 7, 0], [6, 5, 4, 0]]], dtype=np.uint8), "RGBA")
    path = saved(tmp_path / "a.bmp", image)
    assert pixels(path) == [[[9, 8, 7], [6, 5, 4]]]


def test_printing_colours_are_converted_by_the_formula_or_refused_with_their_profile(tmp_path):
    ink = Image.new("CMYK", (16, 16), (255, 0, 0, 51))
    plain = saved(tmp_path / "plain.jpg", ink, quality=100)
    assert np.abs(np.array(pixels(plain)) - (0, 204, 204)).max() <= 2  # JPEG rounds
    assert image_facts(plain).remarks == (WITHOUT_PROFILE,)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()  # any profile will do
    bound = saved(tmp_path / "bound.jpg", ink, icc_profile=profile)
    with pytest.raises(UnreadableImageError, match=r"bound\.jpg .*CMYK.*save it in RGB") as refused:
        image_facts(bound)
    assert refused.value.kind == PRINTED


@pytest.mark.parametrize("ending", ["png", "webp"])
def test_an_animation_is_refused_and_one_frame_is_a_picture(tmp_path, ending):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = saved(tmp_path / f"a.{ending}", frames[0], save_all=True, append_images=frames[1:])
    for read in (image_facts, read_rgb):
        with pytest.raises(UnreadableImageError, match=rf"a\.{ending} .*an animation of 2 frames") as refused:
            read(path)
        assert refused.value.kind == ANIMATED
    assert image_facts(saved(path, frames[0], save_all=True)).size == (8, 8)


def test_a_photo_with_a_second_picture_beside_it_is_the_photo(tmp_path):
    other = Image.new("RGB", (16, 16), "blue")
    path = saved(
        tmp_path / "a.jpg",
        Image.new("RGB", (16, 16), "red"),
        format="MPO",
        save_all=True,
        append_images=[other],
    )
    assert np.abs(np.array(pixels(path)) - (255, 0, 0)).max() <= 2
    assert image_facts(path).size == (16, 16)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "webp", "jpg"])
def test_a_picture_is_turned_as_its_exif_says(tmp_path, ending, orientation):
    image = COLOUR.crop((0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{ending}", image, exif=exif, lossless=True)
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    assert pixels(path) == np.asarray(upright).tolist()
    assert image_facts(path).size == upright.size[::-1]


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0rubbish"])
@pytest.mark.parametrize("ending", ["png", "webp", "jpg"])
def test_exif_that_cannot_be_read_is_no_damage(tmp_path, ending, exif):
    path = saved(tmp_path / f"a.{ending}", COLOUR.crop((0, 0, 16, 8)), exif=exif)
    assert image_facts(path).size == (8, 16)
    assert read_rgb(path).size == (16, 8)


def texts(kind, text):
    info = PngInfo()
    if kind == "iTXt":
        info.add_itxt("XML:com.adobe.xmp", text, zip=True)
    else:
        info.add_text("workflow", text, zip=kind == "zTXt")
    return info


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt"])
def test_a_long_text_beside_the_pixels_is_no_damage(tmp_path, kind):
    path = saved(tmp_path / "a.png", COLOUR, pnginfo=texts(kind, "x" * 3_000_000))
    assert pixels(path) == np.asarray(COLOUR).tolist()
    assert image_facts(path, decode=True).size == (16, 16)


def test_a_long_profile_and_hundreds_of_long_texts_are_no_damage(tmp_path):
    info = texts("zTXt", "x")
    for number in range(100):
        info.add_text(f"text {number}", "x" * 1_000_000, zip=True)
    path = saved(tmp_path / "a.png", COLOUR, pnginfo=info, icc_profile=b"x" * 3_000_000)
    assert pixels(path) == np.asarray(COLOUR).tolist()


@pytest.mark.parametrize("is_compressed", [False, True])
def test_a_turn_that_only_a_text_tells_is_kept(tmp_path, is_compressed):
    info = PngInfo()
    info.add_text("workflow", "x" * 3_000_000, zip=True)
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>', zip=is_compressed)
    path = saved(tmp_path / "a.png", COLOUR.crop((0, 0, 16, 8)), pnginfo=info)
    assert image_facts(path).size == read_rgb(path).size[::-1] == (16, 8)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.gif", "GIF"), ("a.tiff", "TIFF"), ("a.jp2", "JPEG 2000"), ("a.avif", "AVIF"), ("a.ico", "icon")],
)
def test_a_format_that_is_not_read_is_refused_by_its_name(tmp_path, name, kind):
    content = io.BytesIO()
    try:
        COLOUR.save(content, format=Image.registered_extensions()[f".{name.partition('.')[2]}"])
    except (OSError, KeyError):
        pytest.skip(f"this Pillow writes no {kind}")
    (tmp_path / "a.png").write_bytes(content.getvalue())  # whatever the name says
    with pytest.raises(
        UnreadableImageError, match=rf"a\.png cannot be read as an image \(a file of the kind {kind}\)"
    ):
        image_facts(tmp_path / "a.png")


def test_one_transparent_colour_of_sixteen_bits_is_refused_because_pillow_loses_it(tmp_path):
    path = png(tmp_path / "a.png", 2, 16, [[1, 2, 3, 4, 5, 6]], tRNS=b"\1\2\3\4\5\6")
    with pytest.raises(UnreadableImageError, match="16 bits with one transparent colour"):
        image_facts(path)
