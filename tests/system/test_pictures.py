"""Images from strangers: complete ones pass; truncated, forged and oversized ones are refused."""

import hashlib
import struct
import zlib

import pytest
from PIL import Image

from training.system.pictures import image_facts, load_image

KINDS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "bmp"}


@pytest.fixture(params=KINDS)
def picture(request, tmp_path):
    path = tmp_path / f"picture.{KINDS[request.param]}"
    Image.effect_noise((48, 32), 90).convert("RGB").save(path, format=request.param)
    return path


def png(width, height, pixels=b""):
    """Return a PNG that declares a size, whatever its pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_whole_image_is_named_by_its_bytes(picture):
    assert image_facts(picture).digest == hashlib.sha256(picture.read_bytes()).digest()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_an_image_cut_off_anywhere_is_refused(picture, share):
    whole = picture.read_bytes()
    picture.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"picture\.\w+ cannot be read as an image"):
        image_facts(picture)


def test_bytes_behind_the_end_of_an_image_do_no_harm(picture):
    picture.write_bytes(picture.read_bytes() + b"a note of the camera")
    assert image_facts(picture).digest == hashlib.sha256(picture.read_bytes()).digest()


def test_a_changed_byte_of_a_png_is_seen_without_decoding(tmp_path):
    path = tmp_path / "a.png"
    data = bytearray(png(4, 4, bytes(4 * (1 + 12))))
    data[-20] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.png cannot be read"):
        image_facts(path)


@pytest.mark.parametrize("size", [(8193, 8192), (60_000, 60_000), (2**31 - 1, 1), (1, 17), (4000, 100)])
@pytest.mark.parametrize("read", [image_facts, lambda path: load_image(path, (64, 64))])
def test_a_file_that_claims_to_be_huge_or_a_long_strip_is_refused_unread(tmp_path, size, read):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(*size))
    with pytest.raises(ValueError, match=r"bomb\.png cannot be read as an image"):
        read(path)


def test_animations_vector_graphics_and_text_are_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.gif")
    (tmp_path / "a.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>")
    (tmp_path / "a.png").write_text("not a picture")
    for name in ("a.gif", "a.svg", "a.png", "gone.png", "."):
        with pytest.raises(ValueError, match="cannot be read as an image"):
            image_facts(tmp_path / name)


def test_an_image_of_any_allowed_shape_becomes_a_square(tmp_path):
    Image.new("RGB", (160, 10), (255, 0, 0)).save(tmp_path / "strip.png")
    pixels = load_image(tmp_path / "strip.png", (16, 16))
    assert pixels.shape == (1, 3, 16, 16)
    assert pixels[0, 0].eq(1).all()


def test_a_mirrored_image_has_its_columns_in_reverse(tmp_path):
    Image.effect_noise((24, 16), 80).save(tmp_path / "noise.png")
    plain = load_image(tmp_path / "noise.png", (16, 24))
    assert plain.shape == (1, 3, 16, 24)
    assert load_image(tmp_path / "noise.png", (16, 24), mirrored=True).equal(plain.flip(-1))


@pytest.mark.parametrize(("orientation", "size"), [(1, (16, 24)), (3, (16, 24)), (6, (24, 16))])
def test_the_size_is_that_of_the_picture_as_it_is_turned(tmp_path, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (24, 16)).save(tmp_path / "turned.jpg", exif=exif)
    assert image_facts(tmp_path / "turned.jpg").size == size
    assert load_image(tmp_path / "turned.jpg", size).shape == (1, 3, *size)
