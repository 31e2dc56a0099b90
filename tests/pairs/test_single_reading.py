"""From its folder to the cache a picture is read and hashed once, and read again only to decode it."""

import hashlib
import shutil
import sys
from collections import Counter

import pytest
import torch
from PIL import Image

from builders import pair_row, write_picture, write_rows
from training.models.conditioning import Conditioning
from training.pairs import load_pairs
from training.pairs.encode import Encoders, encode_pairs, encode_pictures
from training.pairs.entry_store import entry_key

ENCODERS = Encoders(
    image=lambda pixels: torch.nn.functional.avg_pool2d(pixels, 8)[:, [0, 1, 2, 2]],
    prompt=lambda text: Conditioning(torch.full((1, 77, 8), float(len(text)))),
    id="v1",
)
_opened: list[str] | None = None


def _note_opening(event, args):
    if event == "open" and _opened is not None:
        _opened.append(str(args[0]))


sys.addaudithook(_note_opening)  # cannot be removed, so it records only inside the fixture below


@pytest.fixture
def folder(tmp_path):
    """Two pairs that share their unsafe picture, and a neutral row that shows a safe one: four pictures."""
    root = tmp_path / "pairs"
    root.mkdir()
    for number, (name, size) in enumerate([("one", (24, 48)), ("two", (48, 24)), ("bad", (32, 32))]):
        Image.effect_noise(size, 50 + number).convert("RGB").save(root / f"{name}.png")
    Image.effect_noise((32, 40), 90).convert("RGB").save(root / "kite.jpg")
    rows = [pair_row(name, unsafe_image="bad.png", safe_image=f"{name}.png") for name in ("one", "two")]
    neutral = [
        {"id": "n", "prompt": "a kite", "image": "kite.jpg"},
        {"id": "m", "prompt": "a", "image": "one.png"},
    ]
    write_rows(root / "pairs.jsonl", rows)
    write_rows(root / "neutral.jsonl", neutral)
    return root


@pytest.fixture
def count(folder, monkeypatch):
    """Return a function that tells how often each picture was opened and hashed since the last call."""
    global _opened
    names = {hashlib.sha256(file.read_bytes()).digest(): file.name for file in folder.glob("*.*g")}
    hashed, sha256, _opened = [], hashlib.sha256, []

    def noted(data=b"", **options):
        digest = sha256(data, **options)
        hashed.append(digest.digest())
        return digest

    def count():
        readings = Counter(name for path in _opened for name in names.values() if path.endswith(name))
        hashes = Counter(names[digest] for digest in hashed if digest in names)
        _opened.clear()
        hashed.clear()
        return dict(readings), dict(hashes)

    monkeypatch.setattr(hashlib, "sha256", noted)
    yield count
    _opened = None


def all_pictures(times):
    """Return the count of pictures that are all read or hashed so often."""
    return dict.fromkeys(("one.png", "two.png", "bad.png", "kite.jpg"), times)


def encode(pairs, cache):
    return encode_pairs(pairs, ENCODERS, resolution=32, mirrored=True, bucketed=True, cache_dir=cache)


def test_checking_a_folder_reads_and_hashes_each_picture_once(folder, count):
    assert load_pairs(folder).report.kept == 2
    assert count() == (all_pictures(1), all_pictures(1))


def test_a_check_that_decodes_every_picture_reads_and_hashes_it_once(folder, count):
    pairs = load_pairs(folder, decode=True)
    assert len(pairs.content_hash) == 64
    assert count() == (all_pictures(1), all_pictures(1))


def test_pictures_in_the_cache_are_not_read_again(folder, count, tmp_path):
    encode(load_pairs(shutil.copytree(folder, tmp_path / "copy")), tmp_path / "cache")
    count()
    pairs = load_pairs(folder)
    count()
    assert encode(pairs, tmp_path / "cache").pairs_hash == pairs.content_hash
    assert count() == ({}, {})


def test_a_picture_and_its_mirror_image_are_decoded_from_one_reading(folder, count, tmp_path):
    pairs = load_pairs(folder)
    count()
    data = encode(pairs, tmp_path / "cache")
    assert data.is_mirrored
    readings, hashes = count()
    assert hashes == {}
    # a picture is cropped once for each size: `bad` goes with its winners to two buckets
    assert readings == all_pictures(1) | {"bad.png": 2}


def test_calibration_pictures_are_hashed_when_the_pairs_are_read_and_not_again(folder, count):
    pairs = load_pairs(folder).pairs
    count()
    encode_pictures([[pair.winner for pair in pairs]], ENCODERS, resolution=32)
    assert count() == ({"one.png": 1, "two.png": 1}, {})


def test_a_picture_that_changes_is_read_again(folder, count):
    before = load_pairs(folder).content_hash
    count()
    write_picture(folder / "kite.jpg", (1, 2, 3))
    count()
    assert load_pairs(folder).content_hash != before
    assert count()[0] == {"kite.jpg": 1}


@pytest.mark.parametrize(
    ("kind", "content", "form", "key"),
    [
        ("image", "00" * 32, "512x512", "b7bb9724194f7bc90c2836cfdb1966ece11c33eacb0a2cf4cb189d97a4aaf39a"),
        (
            "image",
            "00" * 32,
            "512x512 mirrored",
            "80b29d1f70fb11f7959131f5284ff25068b071f270b6ac6c05e41033969e82cd",
        ),
        ("prompt", "a red kite", "", "2279df0371b31f8813ad5454b74c1d4c10dd0a5840fedc2b9e114bb4fc009ab3"),
    ],
)
def test_the_cache_of_an_earlier_version_stays_valid(kind, content, form, key):
    assert entry_key(kind, content, encoder_id="v1", form=form, dtype=torch.float32) == key
