"""Measures: which are missing and why, and which models they use."""

import pytest

from painted import Painter, make_bench
from training.evaluation.benchmark import load_measures, run_benchmark


@pytest.fixture(autouse=True)
def _no_sentence_model(monkeypatch):
    monkeypatch.setattr("training.evaluation.benchmark.measures.find_sentences", lambda device: None)


def test_a_measure_without_its_model_is_missing_and_says_how_to_get_it():
    measures = load_measures(None, None, how="--clip-score DIR, --inception FILE")
    assert (measures.of_pictures, measures.features) == ({}, None)
    assert "--clip-score DIR" in measures.missing["CLIPScore"]
    assert "--inception FILE" in measures.missing["FID"]


def test_the_models_of_measures_are_identified_by_their_content(tmp_path, monkeypatch):
    monkeypatch.setattr("training.evaluation.benchmark.measures.load_inception", lambda file, device: None)
    models = []
    for number, content in enumerate((b"one", b"two", b"one")):
        file = tmp_path / f"{number}.safetensors"
        file.write_bytes(content)
        models.append(load_measures(None, file, how="").models)
    assert models[0] == models[2] != models[1]
    assert list(models[0]) == ["FID model"]
    run_benchmark(make_bench({"base": Painter()}, settings=models[0]), tmp_path / "run")
    with pytest.raises(ValueError, match="made with another FID model"):
        run_benchmark(make_bench({"base": Painter()}, settings=models[1]), tmp_path / "run")
