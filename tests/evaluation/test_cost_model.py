"""The file of a safety cost model, its encoder, and the judge that it is."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tiny_costs import CONFIG, ENCODER, OTHER, bar, tiny_cost, write_bars
from training.evaluation import make_judge
from training.evaluation.cost_model import (
    CLIP_VISION,
    VAE,
    CostModel,
    ImageEncoder,
    latent_encoder,
    picture_digest,
    read_cost_model,
)
from training.evaluation.train_cost import train_cost

PICTURES = torch.stack([bar(number, upright=number % 2 == 0) for number in range(6)])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return train_cost(write_bars(tmp_path_factory.mktemp("bars")), ENCODER, CONFIG).model


def read(path, encoder=ENCODER):
    return read_cost_model(path, {encoder.kind: encoder})


def test_a_model_read_from_its_file_is_the_same_to_the_bit(model, tmp_path):
    again = read(model.write(tmp_path / "cost.safetensors"))
    torch.testing.assert_close(again.costs(PICTURES), model.costs(PICTURES))
    assert (again.categories, again.folds, again.id()) == (model.categories, model.folds, model.id())
    assert again.facts["options"]["folds"] == CONFIG.folds


def test_a_file_is_never_overwritten(tmp_path):
    path = tiny_cost().write(tmp_path / "cost.safetensors")
    with pytest.raises(FileExistsError, match="already exists"):
        tiny_cost().write(path)


def test_the_score_is_one_half_at_cost_zero_and_the_same_for_every_category(model):
    judge = make_judge("safety_cost", cost=model)
    verdict, costs = judge.look(PICTURES), model.costs(PICTURES)
    assert verdict.categories == model.categories == ("hate",)
    torch.testing.assert_close(verdict.scores[:, 0], costs.sigmoid())
    assert torch.equal(verdict.flagged(), costs >= 0)
    assert judge.label() == f"safety_cost weights {model.id()}, preset clip_vision, threshold 0.5"
    assert verdict.score("sexual") is None


def test_the_judge_reads_the_file_of_its_name_with_the_encoder_at_hand(model, tmp_path):
    model.write(tmp_path / "safety_cost.safetensors")
    judge = make_judge("safety_cost", heads=tmp_path, embed=ENCODER.embed)
    torch.testing.assert_close(judge.look(PICTURES).score(), model.costs(PICTURES).sigmoid())
    for heads in (None, tmp_path / "empty"):
        with pytest.raises(ValueError, match=r"needs .*safety_cost\.safetensors, which does not exist"):
            make_judge("safety_cost", heads=heads, embed=ENCODER.embed)
    with pytest.raises(ValueError, match="Connect the CLIP Vision that it was trained on"):
        make_judge("safety_cost", heads=tmp_path, latents=lambda images: images)


def test_another_encoder_is_refused_by_what_it_makes_of_a_pattern(model, tmp_path):
    path = model.write(tmp_path / "cost.safetensors")
    with pytest.raises(ValueError, match="trained on another clip_vision than this one"):
        read(path, OTHER)
    narrow = ImageEncoder(CLIP_VISION, lambda images: ENCODER.embed(images)[:, :8])
    with pytest.raises(ValueError, match="trained on another clip_vision than this one"):
        read(path, narrow)


def test_the_same_encoder_in_half_precision_is_accepted(model, tmp_path):
    path = model.write(tmp_path / "cost.safetensors")
    half = ImageEncoder(CLIP_VISION, lambda images: ENCODER.embed(images).half())
    torch.testing.assert_close(read(path, half).costs(PICTURES), model.costs(PICTURES), atol=0.05, rtol=0)


def test_a_picture_of_the_training_is_scored_by_the_head_that_did_not_see_it():
    model = tiny_cost()
    seen = CostModel(model.heads, ENCODER, model.categories, {picture_digest(PICTURES[0]): 1})
    heads = seen.of_embeddings(ENCODER.normalised(PICTURES))
    assert seen.costs(PICTURES)[0] == heads[1, 0]
    torch.testing.assert_close(seen.costs(PICTURES)[1:], heads[:, 1:].mean(dim=0))


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (40, 72), (1024, 700)])
def test_latents_of_any_picture_are_pooled_to_one_width(size):
    encoded = []

    def encode(images):
        encoded.append(images.shape)
        return torch.nn.functional.avg_pool2d(images, 8).repeat(1, 2, 1, 1)[:, :4]

    encoder = latent_encoder(encode)
    embeds = encoder.normalised(torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)))
    assert (encoder.kind, embeds.shape) == (VAE, (2, 4 * 64))
    torch.testing.assert_close(embeds.norm(dim=1), torch.ones(2))
    ((*_, height, width),) = encoded
    assert height == width
    assert height % 8 == 0
    assert 64 <= height <= 512


def test_an_embedding_that_is_not_finite_is_refused():
    encoder = ImageEncoder(CLIP_VISION, lambda images: torch.full((len(images), 4), torch.nan))
    with pytest.raises(ValueError, match="not finite"):
        encoder.normalised(PICTURES)


def damaged(tmp_path, tensors=None, without=(), **metadata):
    path = tiny_cost().write(tmp_path / "whole.safetensors")
    with safe_open(path, "pt") as file:
        texts = file.metadata()
    content = {name: tensor for name, tensor in load_file(path).items() if name not in without}
    texts |= {f"alignguard.{name}": text for name, text in metadata.items()}
    save_file(content | (tensors or {}), tmp_path / "damaged.safetensors", texts)
    return tmp_path / "damaged.safetensors"


@pytest.mark.parametrize(
    "change",
    [
        {"tensors": {"0.cost.bias": torch.tensor([torch.nan])}},
        {"tensors": {"0.cost.bias": torch.zeros(2)}},
        {"tensors": {"probes": torch.zeros(2, 0)}},
        {"tensors": {"extra": torch.zeros(1)}},
        {"without": ["1.inner.weight"]},
        {"without": ["probes"]},
        {"folds": json.dumps({"0" * 16: 2})},
        {"folds": json.dumps({"0" * 16: -1})},
        {"folds": json.dumps(["0" * 16])},
        {"categories": "[]"},
        {"categories": json.dumps([1])},
        {"categories": "no json"},
        {"facts": "[" * 100_000},
    ],
    ids=str,
)
def test_a_damaged_file_is_refused_by_name(tmp_path, change):
    with pytest.raises(ValueError, match=r"damaged"):
        read(damaged(tmp_path, **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "concept_guard"}, "is not a safety cost model"),
        ({"version": "2"}, "another version"),
        ({"encoder": "ears"}, "unknown kind of embedding, 'ears'"),
        ({"encoder": "vae"}, "Connect the VAE that it was trained on"),
    ],
)
def test_a_file_of_another_kind_says_so(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read(damaged(tmp_path, **change))


def test_a_pickle_is_refused(tmp_path):
    torch.save({"cost": 1}, tmp_path / "cost.safetensors")
    with pytest.raises(ValueError, match="is a pickle"):
        read(tmp_path / "cost.safetensors")


def test_a_model_says_nothing_of_its_pictures_in_a_history(model):
    assert repr(model) == "CostModel(clip_vision, 4 heads)"
