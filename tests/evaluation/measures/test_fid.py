"""FID by torch-fidelity: the plumbing with random weights, and the distance against its closed form."""

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from training.evaluation.measures import fid
from training.evaluation.measures.fid import ENOUGH, WIDTH, frechet_distance, load_inception


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ValueError, match="FID needs the package torch-fidelity"):
        load_inception(tmp_path / "inception.safetensors")


def test_too_few_pictures_are_not_measured():
    sets = torch.zeros(ENOUGH, WIDTH), torch.zeros(ENOUGH - 1, WIDTH)
    assert frechet_distance(*sets) is None


def test_the_distance_of_two_normal_sets_is_the_closed_form(monkeypatch):
    pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")
    monkeypatch.setattr(fid, "ENOUGH", 10)
    features = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    assert 0 <= frechet_distance(features, features) < 1e-6
    # equal covariances: the squared distance of the means is left, and twice the spread adds its square
    assert frechet_distance(features, features + 0.5) == pytest.approx(8 * 0.25, abs=1e-4)
    variance = float(features.double().var(dim=0).sum())
    moved = (features - features.mean(0)) * 2 + features.mean(0)
    assert frechet_distance(features, moved) == pytest.approx(variance, rel=1e-4)


def test_with_different_covariances_the_distance_is_that_of_the_matrix_square_root(monkeypatch):
    pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")
    linalg = pytest.importorskip("scipy.linalg")
    monkeypatch.setattr(fid, "ENOUGH", 10)
    generator = torch.Generator().manual_seed(0)
    sets = [torch.randn(200, 8, generator=generator) @ torch.randn(8, 8, generator=generator) for _ in "12"]
    (first, a), (second, b) = (
        (features.double().mean(0).numpy(), np.cov(features.double().numpy(), rowvar=False))
        for features in sets
    )
    expected = ((first - second) ** 2).sum() + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
    assert frechet_distance(*sets) == pytest.approx(expected, rel=1e-4)  # it works in fp32


def test_weights_from_safetensors_give_the_features_of_the_same_network(tmp_path):
    package = pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")
    plain = package.FeatureExtractorInceptionV3.__new__(package.FeatureExtractorInceptionV3)
    with pytest.MonkeyPatch.context() as patched, torch.random.fork_rng():
        torch.manual_seed(0)
        patched.setattr(torch, "load", lambda *_, **__: None)
        patched.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        plain.__init__("inception-v3-compat", [str(WIDTH)], feature_extractor_weights_path="none")
    file = tmp_path / "inception.safetensors"
    save_file({name: value.contiguous() for name, value in plain.state_dict().items()}, file)
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    (expected,) = plain((picture * 255).round().byte())
    torch.testing.assert_close(load_inception(file)(picture), expected[0])


def test_other_weights_are_refused_and_so_is_a_pickle(tmp_path):
    pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")
    save_file({"a": torch.zeros(1)}, tmp_path / "inception.safetensors")
    with pytest.raises(ValueError, match="does not hold the weights"):
        load_inception(tmp_path / "inception.safetensors")
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="pickle"):
        load_inception(tmp_path / "weights.pth")
