"""Images and prompts are encoded once, cached by content, and read as normal tensors on access."""

import errno
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from builders import write_picture
from training.models.conditioning import Conditioning
from training.pairs import NeutralSample, SafetyPairs
from training.pairs.encode import Encoders, encode_pairs, encode_pictures
from training.pairs.entry_store import EntryStore, entry_key
from training.pairs.pair import PreferencePair
from training.pairs.report import PairsReport
from training.system.pictures import load_image

SIDE = 16


class FakeEncoders:
    """Fake encoders that count their calls: mean colours to latents, length of the prompt to embeddings."""

    def __init__(self):
        self.images = self.prompts = 0

    def image(self, pixels):
        self.images += 1
        latents = torch.nn.functional.avg_pool2d(pixels, 8)
        return torch.cat([latents, torch.ones_like(latents[:, :1])], 1)

    def prompt(self, text):
        self.prompts += 1
        return Conditioning(torch.full((1, 77, 8), float(len(text))))

    def encode(self, pairs, encoder_id="v1", **options):
        return encode_pairs(pairs, self.named(encoder_id), **{"resolution": SIDE} | options)

    def named(self, encoder_id="v1"):
        return Encoders(self.image, self.prompt, encoder_id)


def every(table):
    """Return all rows of a table."""
    return table[torch.arange(len(table))]


def red(table):
    """Return the red value at the left of each picture behind the fake latents."""
    return ((every(table)[:, 0, 0, 0] + 1) * 127.5).round().tolist()


def picture(path: Path, red: int) -> Path:
    return write_picture(path, (red, 0, 0), (SIDE, SIDE))


@pytest.fixture
def pairs(tmp_path):
    """Two pairs that share their loser and a prompt, and one neutral row: four images, four prompts."""
    safe, safer = picture(tmp_path / "1.png", 0), picture(tmp_path / "2.png", 100)
    unsafe, kite = picture(tmp_path / "3.png", 200), picture(tmp_path / "4.png", 255)
    return SafetyPairs(
        source=tmp_path,
        pairs=(
            PreferencePair("1", ("hate",), "bad", "flower", safe, unsafe),
            PreferencePair("2", ("hate",), "bad", "garden bed", safer, unsafe),
        ),
        neutral=(NeutralSample("n", "a kite", kite),),
        report=PairsReport(2, neutral=1),
    )


def test_latents_and_embeddings_stand_at_their_pairs(pairs):
    data = FakeEncoders().encode(pairs)
    assert (data.num_pairs, data.num_neutral, data.is_mirrored) == (2, 1, False)
    (bucket,) = data.buckets
    assert (bucket.latent_shape, bucket.pairs.tolist(), bucket.neutral.tolist()) == ((4, 2, 2), [0, 1], [0])
    assert every(data.winner).shape == (2, 4, 2, 2)
    assert red(data.winner) == [0, 100]
    assert red(data.loser) == [200, 200]
    assert red(data.neutral) == [255]
    lengths = every(data.prompts).text_embeds[:, 0, 0]
    assert lengths[data.unsafe_prompt].tolist() == [3, 3]
    assert lengths[data.safe_prompt].tolist() == [6, 10]
    assert lengths[data.neutral_prompt].tolist() == [6]
    assert data.empty.text_embeds.shape == (1, 77, 8)
    assert not data.empty.text_embeds.any()
    assert data.pairs_hash == pairs.content_hash


def test_each_different_image_and_prompt_is_encoded_once(pairs):
    encoders = FakeEncoders()
    data = encoders.encode(pairs)
    assert (encoders.images, encoders.prompts) == (4, 5)  # the empty prompt too
    assert data.unsafe_prompt[0] == data.unsafe_prompt[1]


def test_without_neutral_rows_the_safe_side_of_the_pairs_stands_in(pairs):
    encoders = FakeEncoders()
    data = encoders.encode(SafetyPairs(pairs.source, pairs.pairs, (), pairs.report))
    assert red(data.neutral) == red(data.winner)
    assert data.neutral_prompt.tolist() == data.safe_prompt.tolist()
    assert encoders.images == 3  # none is encoded twice for it


def test_mirrored_pictures_follow_and_are_pictures_of_their_own(pairs):
    half = Image.new("RGB", (SIDE, SIDE), (0, 0, 0))
    half.paste((200, 0, 0), (0, 0, SIDE // 2, SIDE))
    half.save(pairs.pairs[0].winner)
    encoders = FakeEncoders()
    data = encoders.encode(pairs, mirrored=True)
    assert (data.num_pairs, data.num_neutral, data.is_mirrored) == (2, 1, True)
    # mirrored pictures are encoded: their latents are not the mirrored latents of an autoencoder
    assert encoders.images == 8
    plain, twin = every(data.winner)[[0, 2]]
    assert torch.equal(twin, plain.flip(-1))  # this fake encoder has no preferred side
    assert not torch.equal(twin, plain)
    assert (len(data.loser), len(data.neutral)) == (4, 2)


def test_mirrored_pictures_share_no_entry_with_plain_ones(pairs, tmp_path):
    FakeEncoders().encode(pairs, cache_dir=tmp_path / "cache")
    encoders = FakeEncoders()
    encoders.encode(pairs, mirrored=True, cache_dir=tmp_path / "cache")
    assert (encoders.images, encoders.prompts) == (4, 0)


def test_both_pictures_of_a_pair_are_cropped_to_the_bucket_of_the_winner(pairs):
    write_picture(pairs.pairs[0].winner, size=(20, 60))  # 1:3, the loser is square
    write_picture(pairs.neutral[0].image, (9, 0, 0), (60, 20))  # wide, where no pair is
    data = FakeEncoders().encode(pairs, bucketed=True)
    tall, square = data.buckets
    assert (tall.latent_shape, tall.pairs.tolist()) == ((4, 3, 1), [0])  # 24 x 8: as the picture
    assert (square.latent_shape, square.pairs.tolist()) == ((4, 2, 2), [1])
    for bucket in data.buckets:
        assert (
            data.winner[bucket.pairs].shape[1:] == data.loser[bucket.pairs].shape[1:] == bucket.latent_shape
        )
        assert data.neutral[bucket.neutral].shape[1:] == bucket.latent_shape
    # the neutral picture goes to the nearest bucket in use; in the other the safe side stands in
    assert square.neutral.tolist() == [0]
    assert data.neutral_prompt[tall.neutral].tolist() == data.safe_prompt[tall.pairs].tolist()


def test_a_table_reads_only_the_rows_it_is_asked_for(pairs, tmp_path):
    data = FakeEncoders().encode(pairs, cache_dir=tmp_path / "cache")
    data.winner.entries[1].path.unlink()
    assert data.winner[torch.tensor([0, 0])].shape == (2, 4, 2, 2)
    with pytest.raises(
        FileNotFoundError, match="is gone from the cache .* and missing entries are encoded anew"
    ):
        data.winner[torch.tensor([1])]


def test_the_encoding_has_one_name_wherever_it_is_kept(pairs, tmp_path):
    names = [
        FakeEncoders().encode(pairs).encoding_hash,
        FakeEncoders().encode(pairs, cache_dir=tmp_path / "cache").encoding_hash,
        FakeEncoders().encode(pairs, cache_dir=tmp_path / "cache").encoding_hash,  # now read
    ]
    assert len(set(names)) == 1
    picture(pairs.pairs[0].winner, 50)
    assert FakeEncoders().encode(pairs).encoding_hash not in names


def test_a_second_pass_reads_the_cache_and_gives_the_same_bits(pairs, tmp_path):
    first = FakeEncoders().encode(pairs, cache_dir=tmp_path / "cache")
    encoders = FakeEncoders()
    second = encoders.encode(pairs, cache_dir=tmp_path / "cache")
    assert encoders.images == encoders.prompts == 0
    assert torch.equal(every(first.winner), every(second.winner))
    assert torch.equal(every(first.prompts).text_embeds, every(second.prompts).text_embeds)


def test_other_encoders_do_not_read_these_entries(pairs, tmp_path):
    FakeEncoders().encode(pairs, cache_dir=tmp_path / "cache")
    encoders = FakeEncoders()
    encoders.encode(pairs, cache_dir=tmp_path / "cache", encoder_id="v2")
    assert (encoders.images, encoders.prompts) == (4, 5)


def test_a_changed_image_is_encoded_anew_under_its_old_name(pairs, tmp_path):
    FakeEncoders().encode(pairs, cache_dir=tmp_path / "cache")
    picture(pairs.pairs[0].winner, 50)
    encoders = FakeEncoders()
    data = encoders.encode(pairs, cache_dir=tmp_path / "cache")
    assert encoders.images == 1
    assert torch.isclose(every(data.winner)[0, 0, 0, 0], torch.tensor(50 / 127.5 - 1))


def test_a_torn_entry_is_made_anew(pairs, tmp_path):
    FakeEncoders().encode(pairs, cache_dir=tmp_path / "cache")
    entries = sorted((tmp_path / "cache").rglob("*.safetensors"))
    whole = entries[0].read_bytes()
    for torn in (whole[: len(whole) // 2], b""):
        entries[0].write_bytes(torn)
        encoders = FakeEncoders()
        encoders.encode(pairs, cache_dir=tmp_path / "cache")
        assert encoders.images + encoders.prompts == 1
        assert entries[0].read_bytes() == whole


def test_an_entry_that_another_run_made_meanwhile_stays_and_is_used(tmp_path):
    theirs, ours = EntryStore(tmp_path), EntryStore(tmp_path)
    key = "ab" * 32
    stored = []

    def slow():
        stored.append(theirs.get(key, lambda: {"latents": torch.ones(2)}))
        stored.append(stored[0].path.stat().st_mtime_ns)
        return {"latents": torch.full((2,), 1.5)}  # kernels round differently from run to run

    entry = ours.get(key, slow)
    assert (entry.content_hash, entry.path) == (stored[0].content_hash, stored[0].path)
    assert entry.path.stat().st_mtime_ns == stored[1]  # not written again
    assert torch.equal(stored[0].read()["latents"], torch.ones(2))


def test_a_torn_entry_that_another_run_mends_meanwhile_stays(tmp_path):
    theirs, ours = EntryStore(tmp_path), EntryStore(tmp_path)
    key = "cd" * 32

    def good():
        return {"latents": torch.ones(2)}

    theirs.get(key, good).path.write_bytes(b"torn")
    stored = []
    entry = ours.get(key, lambda: stored.append(theirs.get(key, good)) or {"latents": torch.zeros(2)})
    assert torch.equal(entry.read()["latents"], torch.ones(2))
    assert entry.content_hash == stored[0].content_hash


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_cache_that_cannot_be_written_is_named_with_the_reason(pairs, tmp_path, monkeypatch, number):
    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)  # where a full disk is often noticed; no test can fill one
    cache = tmp_path / "cache"
    with pytest.raises(OSError, match="Make room, or choose another cache folder") as caught:
        FakeEncoders().encode(pairs, cache_dir=cache)
    assert caught.value.errno == number
    assert str(cache) in str(caught.value)
    assert os.strerror(number) in str(caught.value)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_a_file_in_place_of_the_cache_folder_is_named(pairs, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    with pytest.raises(OSError, match=r"cache .*cannot be written"):
        FakeEncoders().encode(pairs, cache_dir=tmp_path / "cache")


def test_cancelling_keeps_what_was_encoded(pairs, tmp_path):
    def cancel(done, total):
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        FakeEncoders().encode(pairs, cache_dir=tmp_path / "cache", on_progress=cancel)
    encoders = FakeEncoders()
    encoders.encode(pairs, cache_dir=tmp_path / "cache")
    assert encoders.images + encoders.prompts == 9 - 3


def test_progress_counts_every_item_once(pairs):
    seen = []
    FakeEncoders().encode(pairs, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 9) for done in range(1, 10)]


def test_inside_a_hosts_inference_mode_the_tensors_are_trainable_ones(pairs, tmp_path):
    for _ in range(2):  # encoded, then read from the cache
        with torch.inference_mode():
            data = FakeEncoders().encode(pairs, cache_dir=tmp_path / "cache")
        tensors = [value for value in vars(data).values() if isinstance(value, torch.Tensor)]
        tensors += [*every(data.prompts).tensors, *data.empty.tensors, every(data.winner)]
        assert not any(tensor.is_inference() for tensor in tensors)


def test_values_that_are_not_finite_are_refused_and_not_kept(pairs, tmp_path):
    encoders = FakeEncoders()
    encoders.image = lambda pixels: torch.full((1, 4, 2, 2), float("nan"))
    with pytest.raises(ValueError, match=r"1\.png has values that are not finite"):
        encoders.encode(pairs, cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_long_prompt_is_cut_with_a_warning(pairs, caplog):
    encoders = FakeEncoders()
    encoders.prompt = lambda text: Conditioning(torch.zeros(1, 154 if text == "bad" else 77, 8))
    assert every(encoders.encode(pairs).prompts).text_embeds.shape[1:] == (77, 8)
    assert "1 prompts are longer than 77 tokens" in caplog.text


def test_an_error_names_a_prompt_by_its_number_and_not_by_its_text(pairs):
    encoders = FakeEncoders()
    encoders.prompt = lambda text: Conditioning(
        torch.full((1, 77, 8), float("nan") if text == "bad" else 0.0)
    )
    with pytest.raises(ValueError, match="the encoded prompt 2 of 5 has values") as caught:
        encoders.encode(pairs)
    assert "bad" not in str(caught.value)


def test_latents_of_another_shape_are_refused(pairs):
    encoders = FakeEncoders()
    encoders.image = lambda pixels: torch.zeros(1, 16, 2, 2)
    with pytest.raises(ValueError, match=r"1\.png must have shape \(1, 4, 2, 2\), got \(1, 16, 2, 2\)"):
        encoders.encode(pairs)


def test_a_resolution_that_is_not_a_multiple_of_eight_is_refused(pairs):
    with pytest.raises(ValueError, match="multiple of 8 pixels, got 60"):
        FakeEncoders().encode(pairs, resolution=60)


def test_latents_may_stand_for_more_pixels_than_eight(pairs):
    fake = FakeEncoders()
    pooled = fake.named()._replace(
        image=lambda pixels: torch.nn.functional.avg_pool2d(fake.image(pixels), 2), latent_step=16
    )
    data = encode_pairs(pairs, pooled, resolution=48, bucketed=True)
    (bucket,) = data.buckets
    assert bucket.latent_shape == data.winner[bucket.pairs].shape[1:] == (4, 3, 3)
    with pytest.raises(ValueError, match="multiple of 16 pixels, got 40"):
        encode_pairs(pairs, pooled, resolution=40)


def test_an_entry_key_depends_on_everything_that_made_it():
    base = {"encoder_id": "v1", "form": "512x512", "dtype": torch.float32}
    keys = {
        entry_key("image", "x", **base),
        entry_key("prompt", "x", **base),
        entry_key("image", "y", **base),
        entry_key("image", "x", **base | {"encoder_id": "v2"}),
        entry_key("image", "x", **base | {"form": "64x64"}),
        entry_key("image", "x", **base | {"dtype": torch.float16}),
    }
    assert len(keys) == 6


def test_a_store_without_a_folder_keeps_nothing():
    made = []
    store = EntryStore(None)
    for _ in range(2):
        store.get("key", lambda: {"made": torch.tensor(made.append(1) is None)})
    assert len(made) == 2


def test_an_image_of_the_right_size_keeps_every_pixel(tmp_path):
    image = Image.effect_noise((SIDE, SIDE), 80).convert("RGB")
    image.save(tmp_path / "noise.png")
    loaded = load_image(tmp_path / "noise.png", (SIDE, SIDE))
    assert loaded.shape == (1, 3, SIDE, SIDE)
    back = ((loaded[0].permute(1, 2, 0) + 1) * 127.5).round().byte()
    assert back.numpy().tobytes() == image.tobytes()


def test_an_image_is_resized_by_its_shorter_side_and_cropped_in_the_middle(tmp_path):
    image = Image.new("RGB", (64, 32), (255, 0, 0))
    image.paste((0, 0, 255), (16, 0, 48, 32))
    image.save(tmp_path / "wide.png")
    loaded = load_image(tmp_path / "wide.png", (SIDE, SIDE))
    assert (loaded[0, 2, :, 1:-1] == 1).all()  # the blue middle; bilinear mixes the outermost columns
    assert loaded[0, 0, :, 1:-1].max() == -1


def test_an_unreadable_image_is_named(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.png cannot be read as an image"):
        load_image(tmp_path / "text.png", (SIDE, SIDE))


def test_pictures_alone_are_encoded_as_for_training_and_found_in_its_cache(pairs, tmp_path):
    encoders, cache = FakeEncoders(), tmp_path / "cache"
    data = encoders.encode(pairs, cache_dir=cache)
    (first, second), reports = pairs.pairs, []
    groups = [[first.loser, first.winner], [second.loser], [pairs.neutral[0].image]]
    latents = encode_pictures(
        groups,
        encoders.named(),
        resolution=SIDE,
        cache_dir=cache,
        on_progress=lambda *progress: reports.append(progress),
    )
    assert encoders.images == 4  # none anew
    assert reports == [(1, 3), (2, 3), (3, 3)]
    assert torch.equal(torch.stack([latents[0][0], latents[1][0]]), every(data.loser))
    assert torch.equal(latents[0][1], every(data.winner)[0])
    assert torch.equal(latents[2][0], every(data.neutral)[0])
    with pytest.raises(ValueError, match="multiple of 8 pixels, got 20"):
        encode_pictures(groups, encoders.named(), resolution=20)
