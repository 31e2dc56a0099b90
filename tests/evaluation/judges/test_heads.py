"""Q16 and MHSC against numpy, on golden vectors, and what does not fit."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from training.evaluation import Panel, make_judge
from training.evaluation.judges.mhsc import HEADS, HIDDEN, WIDTH
from training.evaluation.judges.q16 import COVERED

RNG = np.random.default_rng(0)
PICTURES = torch.zeros(3, 3, 4, 4)


def giving(vectors):
    return lambda images: torch.as_tensor(np.asarray(vectors), dtype=torch.float32)


@pytest.fixture
def q16(tmp_path):
    prompts = RNG.normal(size=(2, 768)).astype(np.float32)
    save_file({"prompts": torch.from_numpy(prompts)}, tmp_path / "q16.safetensors")
    return tmp_path, prompts


def test_q16_finds_its_own_prompts(q16):
    folder, prompts = q16
    verdict = make_judge("q16", embed=giving(3 * prompts[[1, 0, 1]]), heads=folder).look(PICTURES)
    assert verdict.flagged().tolist() == [True, False, True]
    assert verdict.categories == COVERED
    assert verdict.score("sexual") is None
    assert verdict.score("violence").tolist() == verdict.score("hate").tolist()


def test_q16_scores_are_those_of_numpy(q16):
    folder, prompts = q16
    vectors = (prompts.sum(axis=0) / 2 + 0.2 * RNG.normal(size=(3, 768))).astype(np.float32)
    cosines = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) @ (
        prompts / np.linalg.norm(prompts, axis=1, keepdims=True)
    ).T
    expected = 1 / (1 + np.exp(100 * (cosines[:, 0] - cosines[:, 1])))
    scores = make_judge("q16", embed=giving(vectors), heads=folder).look(PICTURES).score()
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-4)  # 100 times fp32 cosines


@pytest.fixture
def mhsc(tmp_path):
    weights = {}
    for head in HEADS:
        for name, shape in {
            "0.weight": (HIDDEN, WIDTH),
            "0.bias": (HIDDEN,),
            "4.weight": (1, HIDDEN),
        }.items():
            weights[f"{head}.{name}"] = RNG.normal(size=shape).astype(np.float32) / np.sqrt(shape[-1])
        for name in ("weight", "bias", "running_mean"):
            weights[f"{head}.3.{name}"] = RNG.normal(size=HIDDEN).astype(np.float32)
        weights[f"{head}.3.running_var"] = RNG.uniform(0.5, 2, size=HIDDEN).astype(np.float32)
        weights[f"{head}.4.bias"] = RNG.normal(size=1).astype(np.float32)
    save_file(
        {name: torch.from_numpy(value) for name, value in weights.items()}, tmp_path / "mhsc.safetensors"
    )
    return tmp_path, weights


def test_mhsc_scores_are_those_of_numpy(mhsc):
    folder, weights = mhsc
    vectors = RNG.normal(size=(3, WIDTH)).astype(np.float32)
    verdict = make_judge("mhsc", embed=giving(vectors), heads=folder).look(PICTURES)
    assert verdict.categories == ("sexual", "violence", "shocking", "hate", "political")
    for column, head in enumerate(HEADS):
        layers = {
            name.removeprefix(f"{head}."): value for name, value in weights.items() if name.startswith(head)
        }
        hidden = np.maximum(vectors @ layers["0.weight"].T + layers["0.bias"], 0)
        normal = (hidden - layers["3.running_mean"]) / np.sqrt(layers["3.running_var"] + 1e-5)
        logits = (normal * layers["3.weight"] + layers["3.bias"]) @ layers["4.weight"][0] + layers["4.bias"]
        np.testing.assert_allclose(verdict.scores[:, column].numpy(), 1 / (1 + np.exp(-logits)), atol=1e-5)


@pytest.mark.parametrize("name", ["q16", "mhsc"])
def test_embeddings_of_another_width_are_refused_by_name(q16, mhsc, name):
    judge = make_judge(name, embed=giving(np.zeros((3, 1024))), heads=q16[0])
    with pytest.raises(ValueError, match="of width 768, but this CLIP Vision gives 1024"):
        judge.look(PICTURES)


@pytest.mark.parametrize("name", ["q16", "mhsc"])
def test_missing_embeddings_and_weights_are_named(tmp_path, name):
    with pytest.raises(ValueError, match="works on CLIP image embeddings"):
        make_judge(name)
    for heads in (None, tmp_path):
        with pytest.raises(ValueError, match=rf"needs .*{name}\.safetensors"):
            make_judge(name, embed=giving(np.zeros((3, 768))), heads=heads)
    save_file({"other": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(
        ValueError, match=f"of? ?{name}.safetensors does not fit|{name}.safetensors does not fit"
    ):
        make_judge(name, embed=giving(np.zeros((3, 768))), heads=tmp_path)


def test_a_pickle_under_the_name_is_refused(tmp_path):
    torch.save({"prompts": torch.zeros(2, 768)}, tmp_path / "q16.safetensors")
    with pytest.raises(ValueError, match="is a pickle"):
        make_judge("q16", embed=giving(np.zeros((3, 768))), heads=tmp_path)


def test_the_published_pair_of_judges_covers_what_each_alone_does_not(q16, mhsc):
    both = [make_judge(name, embed=giving(np.zeros((3, 768))), heads=q16[0]) for name in ("q16", "mhsc")]
    assert set(Panel(tuple(both)).categories) == {*COVERED, "sexual", "political"}
