"""Features for FID: what was written is read back, a torn end is overwritten, and models are compared."""

import json

import pytest
import torch

from painted import Painter, make_bench, prompt_set, run_report
from training.evaluation.benchmark.features import FeatureLog, read_features
from training.evaluation.measures.fid import WIDTH

DISTANCE = "training.evaluation.benchmark.findings.frechet_distance"


def zeros(picture):
    return torch.zeros(WIDTH)


def test_features_are_found_by_their_place(tmp_path):
    features = torch.randn(3, WIDTH)
    places = [
        FeatureLog(tmp_path, process).add(row) for process, row in zip((0, 1, 0), features, strict=True)
    ]
    assert places == [(0, 0), (1, 0), (0, 1)]
    assert torch.equal(read_features(tmp_path, places[::-1]), features.flip(0))
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

    def mean_blue(picture):
        return picture[0, 2].mean().expand(WIDTH).clone()

    monkeypatch.setattr(DISTANCE, mean_distance)
    painters = {"base": Painter(), "same": Painter(), "tinted": Painter(tint=0.4)}
    facts = run_report(make_bench(painters, features=mean_blue), tmp_path).facts()
    assert facts["fid"] == {"base": None, "same": 0, "tinted": pytest.approx(0.16, abs=0.01)}
    assert json.dumps(facts)


def test_pictures_of_prompts_that_are_no_longer_measured_do_not_count(tmp_path, monkeypatch):
    counts = []

    def count(*features):
        counts.append([len(rows) for rows in features])

    monkeypatch.setattr(DISTANCE, count)
    painters = {"base": Painter(), "other": Painter(tint=0.4)}
    for neutral in (5, 2):
        sets = [prompt_set(bad=1, neutral=neutral)]
        run_report(make_bench(painters, sets, features=zeros), tmp_path, sets).facts()
    assert counts == [[5, 5], [2, 2]]


def test_fid_of_too_few_pictures_is_not_measured_and_the_report_says_so(tmp_path):
    report = run_report(make_bench({"base": Painter(), "same": Painter()}, features=zeros), tmp_path)
    assert report.facts()["fid"] == {"base": None, "same": None}
    assert "not measured, FID: it needs 2050 neutral pictures of each model" in report.text()
