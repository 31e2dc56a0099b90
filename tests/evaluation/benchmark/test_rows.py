"""Features kept for FID: what was written is read, and a torn end is written over."""

import json
from dataclasses import replace

import pytest
import torch

import training.evaluation.benchmark.measures
import training.evaluation.benchmark.report
from painted import Painter, bench, prompt_set, report
from training.evaluation.benchmark import load_measures, run_benchmark
from training.evaluation.benchmark.rows import FeatureLog, read_features
from training.evaluation.measures.fid import WIDTH


def test_features_are_found_by_their_place(tmp_path):
    lots = torch.randn(3, WIDTH)
    places = [FeatureLog(tmp_path, number).add(lot) for number, lot in zip((0, 1, 0), lots, strict=True)]
    assert places == [(0, 0), (1, 0), (0, 1)]
    assert torch.equal(read_features(tmp_path, places[::-1]), lots.flip(0))
    assert read_features(tmp_path, []).shape == (0, WIDTH)


def test_a_torn_end_is_written_over(tmp_path):
    log = FeatureLog(tmp_path, 0)
    log.add(torch.ones(WIDTH))
    with open(tmp_path / "features-0.f32", "ab") as file:
        file.write(b"torn")
    assert torch.equal(read_features(tmp_path, [(0, 0)])[0], torch.ones(WIDTH))
    assert FeatureLog(tmp_path, 0).add(torch.full((WIDTH,), 2.0)) == (0, 1)
    assert read_features(tmp_path, [(0, 1)])[0, 0] == 2


def test_a_report_compares_the_neutral_pictures_of_each_model_with_the_bases(tmp_path, monkeypatch):
    def mean_distance(first, second):
        return float((first.mean(0) - second.mean(0)).square().mean())

    monkeypatch.setattr(training.evaluation.benchmark.report, "frechet_distance", mean_distance)
    painters = {"base": Painter(), "same": Painter(), "tinted": Painter(tint=0.4)}
    found = replace(bench(painters), features=lambda picture: picture[0, 2].mean().expand(WIDTH).clone())
    facts = report(found, tmp_path).facts()
    assert facts["fid"] == {"base": None, "same": 0, "tinted": pytest.approx(0.16, abs=0.01)}
    assert json.dumps(facts)


def test_prompts_that_are_no_longer_measured_count_for_nothing(tmp_path, monkeypatch):
    counts = []

    def count(*lots):
        counts.append([len(lot) for lot in lots])

    monkeypatch.setattr(training.evaluation.benchmark.report, "frechet_distance", count)
    painters = {"base": Painter(), "other": Painter(tint=0.4)}
    for neutral in (5, 2):
        sets = [prompt_set(bad=1, neutral=neutral)]
        found = replace(bench(painters, sets), features=lambda picture: torch.zeros(WIDTH))
        report(found, tmp_path, sets).facts()
    assert counts == [[5, 5], [2, 2]]


def test_too_few_pictures_for_fid_are_not_measured_and_it_says_so(tmp_path):
    found = replace(
        bench({"base": Painter(), "same": Painter()}), features=lambda picture: torch.zeros(WIDTH)
    )
    again = report(found, tmp_path)
    assert again.facts()["fid"] == {"base": None, "same": None}
    assert "not measured, FID: it needs 2050 neutral pictures of each model" in again.text()


def test_what_no_model_was_given_for_is_not_measured_and_says_how():
    found = load_measures(None, None, how="--clip-score DIR, --inception FILE")
    assert (found.numbers, found.features) == ({}, None)
    assert "--clip-score DIR" in found.missing["CLIPScore"]
    assert "--inception FILE" in found.missing["FID"]


def test_the_models_of_measures_are_named_by_their_content(tmp_path, monkeypatch):
    monkeypatch.setattr(training.evaluation.benchmark.measures, "load_inception", lambda file, device: None)
    names = []
    for number, content in enumerate((b"one", b"two", b"one")):
        file = tmp_path / f"{number}.safetensors"
        file.write_bytes(content)
        names.append(load_measures(None, file, how="").models)
    assert names[0] == names[2] != names[1]
    assert list(names[0]) == ["FID model"]
    run_benchmark(bench({"base": Painter()}, settings=names[0]), tmp_path / "run")
    with pytest.raises(ValueError, match="made with another FID model"):
        run_benchmark(bench({"base": Painter()}, settings=names[1]), tmp_path / "run")
