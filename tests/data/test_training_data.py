"""Images and prompts are encoded once, kept by content, and gathered into normal tensors."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from training.conditioning import Conditioning
from training.data import NeutralSample, SafetyPairs
from training.data.cache import encode_pairs
from training.data.entry_store import EntryStore, entry_key
from training.data.image_file import load_image
from training.data.pairs_report import PairsReport
from training.preference import PreferencePair

SIDE = 16


class Encoders:
    """Fake encoders that count their calls: mean colour to latents, length of the prompt to embeddings."""

    def __init__(self):
        self.images = self.prompts = 0

    def image(self, pixels):
        self.images += 1
        assert pixels.shape == (1, 3, SIDE, SIDE)
        return torch.cat([pixels.mean((2, 3)), torch.ones(1, 1)], 1)[:, :, None, None].expand(1, 4, 2, 2)

    def prompt(self, text):
        self.prompts += 1
        return Conditioning(torch.full((1, 77, 8), float(len(text))))

    def encode(self, pairs, **options):
        options = {"encoder_id": "v1", "resolution": SIDE} | options
        return encode_pairs(pairs, encode_image=self.image, encode_prompt=self.prompt, **options)


def red(latents):
    """Return the red value of each picture behind the fake latents."""
    return ((latents[:, 0, 0, 0] + 1) * 127.5).round().tolist()


def picture(path: Path, red: int) -> Path:
    Image.new("RGB", (SIDE, SIDE), (red, 0, 0)).save(path)
    return path


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
    data = Encoders().encode(pairs)
    assert (data.num_pairs, data.num_neutral, data.latent_shape) == (2, 1, (4, 2, 2))
    assert red(data.winner) == [0, 100]
    assert red(data.loser) == [200, 200]
    assert red(data.neutral) == [255]
    lengths = data.prompts.text_embeds[:, 0, 0]
    assert lengths[data.unsafe_prompt].tolist() == [3, 3]
    assert lengths[data.safe_prompt].tolist() == [6, 10]
    assert lengths[data.neutral_prompt].tolist() == [6]
    assert data.empty.text_embeds.shape == (1, 77, 8)
    assert not data.empty.text_embeds.any()
    assert data.pairs_hash == pairs.content_hash


def test_each_different_image_and_prompt_is_encoded_once(pairs):
    encoders = Encoders()
    data = encoders.encode(pairs)
    assert (encoders.images, encoders.prompts) == (4, 5)  # the empty prompt too
    assert data.unsafe_prompt[0] == data.unsafe_prompt[1]


def test_without_neutral_rows_there_are_none(pairs):
    data = Encoders().encode(SafetyPairs(pairs.source, pairs.pairs, (), pairs.report))
    assert data.neutral.shape == (0, 4, 2, 2)
    assert data.neutral_prompt.shape == (0,)
    assert data.neutral_prompt.dtype == torch.int64


def test_a_second_pass_reads_the_cache_and_gives_the_same_bits(pairs, tmp_path):
    first = Encoders().encode(pairs, cache_dir=tmp_path / "cache")
    encoders = Encoders()
    second = encoders.encode(pairs, cache_dir=tmp_path / "cache")
    assert encoders.images == encoders.prompts == 0
    assert torch.equal(first.winner, second.winner)
    assert torch.equal(first.prompts.text_embeds, second.prompts.text_embeds)


def test_other_encoders_read_no_foreign_entry(pairs, tmp_path):
    Encoders().encode(pairs, cache_dir=tmp_path / "cache")
    encoders = Encoders()
    encoders.encode(pairs, cache_dir=tmp_path / "cache", encoder_id="v2")
    assert (encoders.images, encoders.prompts) == (4, 5)


def test_a_changed_image_is_encoded_anew_under_its_old_name(pairs, tmp_path):
    Encoders().encode(pairs, cache_dir=tmp_path / "cache")
    picture(pairs.pairs[0].winner, 50)
    encoders = Encoders()
    data = encoders.encode(pairs, cache_dir=tmp_path / "cache")
    assert encoders.images == 1
    assert torch.isclose(data.winner[0, 0, 0, 0], torch.tensor(50 / 127.5 - 1))


def test_a_torn_entry_is_made_anew(pairs, tmp_path):
    Encoders().encode(pairs, cache_dir=tmp_path / "cache")
    entries = sorted((tmp_path / "cache").rglob("*.safetensors"))
    whole = entries[0].read_bytes()
    for torn in (whole[: len(whole) // 2], b""):
        entries[0].write_bytes(torn)
        encoders = Encoders()
        encoders.encode(pairs, cache_dir=tmp_path / "cache")
        assert encoders.images + encoders.prompts == 1
        assert entries[0].read_bytes() == whole


def test_cancelling_keeps_what_was_encoded(pairs, tmp_path):
    def cancel(done, total):
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        Encoders().encode(pairs, cache_dir=tmp_path / "cache", on_progress=cancel)
    encoders = Encoders()
    encoders.encode(pairs, cache_dir=tmp_path / "cache")
    assert encoders.images + encoders.prompts == 9 - 3


def test_progress_counts_every_item_once(pairs):
    seen = []
    Encoders().encode(pairs, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 9) for done in range(1, 10)]


def test_inside_a_hosts_inference_mode_the_tensors_are_trainable_ones(pairs, tmp_path):
    for _ in range(2):  # encoded, then read from the cache
        with torch.inference_mode():
            data = Encoders().encode(pairs, cache_dir=tmp_path / "cache")
        tensors = [value for value in vars(data).values() if isinstance(value, torch.Tensor)]
        tensors += [*data.prompts.tensors, *data.empty.tensors]
        assert not any(tensor.is_inference() for tensor in tensors)


def test_values_that_are_not_finite_are_refused_and_not_kept(pairs, tmp_path):
    encoders = Encoders()
    encoders.image = lambda pixels: torch.full((1, 4, 2, 2), float("nan"))
    with pytest.raises(ValueError, match=r"1\.png has values that are not finite"):
        encoders.encode(pairs, cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_long_prompt_is_cut_and_said_so(pairs, caplog):
    encoders = Encoders()
    encoders.prompt = lambda text: Conditioning(torch.zeros(1, 154 if text == "bad" else 77, 8))
    assert encoders.encode(pairs).prompts.text_embeds.shape[1:] == (77, 8)
    assert "1 prompts are longer than 77 tokens" in caplog.text


def test_an_error_names_a_prompt_by_its_number_and_not_by_its_text(pairs):
    encoders = Encoders()
    encoders.prompt = lambda text: Conditioning(
        torch.full((1, 77, 8), float("nan") if text == "bad" else 0.0)
    )
    with pytest.raises(ValueError, match="the encoded prompt 2 of 5 has values") as caught:
        encoders.encode(pairs)
    assert "bad" not in str(caught.value)


def test_latents_of_another_shape_are_refused(pairs):
    encoders = Encoders()
    encoders.image = lambda pixels: torch.zeros(1, 16, 2, 2)
    with pytest.raises(ValueError, match=r"1\.png must have shape \(1, 4, 2, 2\), got \(1, 16, 2, 2\)"):
        encoders.encode(pairs)


def test_a_resolution_that_is_no_multiple_of_eight_is_refused(pairs):
    with pytest.raises(ValueError, match="multiple of 8 pixels, got 60"):
        Encoders().encode(pairs, resolution=60)


def test_an_entry_key_depends_on_everything_that_made_it():
    base = {"encoder_id": "v1", "resolution": 512, "dtype": torch.float32}
    keys = {
        entry_key("image", "x", **base),
        entry_key("prompt", "x", **base),
        entry_key("image", "y", **base),
        entry_key("image", "x", **base | {"encoder_id": "v2"}),
        entry_key("image", "x", **base | {"resolution": 64}),
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
    loaded = load_image(tmp_path / "noise.png", SIDE)
    assert loaded.shape == (1, 3, SIDE, SIDE)
    back = ((loaded[0].permute(1, 2, 0) + 1) * 127.5).round().byte()
    assert back.numpy().tobytes() == image.tobytes()


def test_an_image_is_resized_by_its_shorter_side_and_cropped_in_the_middle(tmp_path):
    image = Image.new("RGB", (64, 32), (255, 0, 0))
    image.paste((0, 0, 255), (16, 0, 48, 32))
    image.save(tmp_path / "wide.png")
    loaded = load_image(tmp_path / "wide.png", SIDE)
    assert (loaded[0, 2, :, 1:-1] == 1).all()  # the blue middle; bilinear mixes the outermost columns
    assert loaded[0, 0, :, 1:-1].max() == -1


def test_an_unreadable_image_is_named(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.png cannot be read as an image"):
        load_image(tmp_path / "text.png", SIDE)
