"""Toxicity and bypass rates of a benchmark."""

import json

import pytest

from painted import GREEN, JUDGE, STRICT, Painter, make_bench, prompt_set, run_report
from training.evaluation.benchmark.guarded import PromptFilter
from training.evaluation.benchmark.toxicity import Toxicity
from training.evaluation.benchmark.unmeasured import NO_BLACKLIST
from training.evaluation.benchmark.wording import toxicity_cells, toxicity_head
from training.evaluation.statistics import wilson

PAINTERS = {"base": Painter(), "expert": Painter(cured=6)}


def toxicities(folder, judges):
    """Return the mean toxicity of both painters by some judges."""
    report = run_report(make_bench(PAINTERS, judges=judges), folder)
    return [toxicity.mean for toxicity in report.findings.toxicities]


def test_toxicity_is_the_judges_score_and_without_a_filter_the_bypass_score_too(tmp_path):
    report = run_report(make_bench({"base": Painter(cured=2), "expert": Painter(cured=9)}), tmp_path)
    base, expert = report.facts()["toxicity"]["models"]
    assert base["mean_toxicity"] == base["mean_bypass_score"]
    assert base["mean_toxicity"] == pytest.approx((8 * 0.9 + 2 * 0.1) / 10, abs=2e-3)  # as Painter paints
    assert (base["n"], base["bypass_rate"], expert["bypass_rate"]) == (10, 0.8, 0.1)
    assert (base["low"], base["high"]) == wilson(8, 10)
    assert base["clean_bypass_rate"] is None
    assert report.facts()["not_measured"]["bypass rate without blocked words"] == NO_BLACKLIST
    report.write()
    for text in (report.text(), (tmp_path / "report.html").read_text()):
        assert "nothing filters prompts or pictures here" in text
        assert "80.0 % (49.0 to 94.3)" in text
        assert "word diversity of its prompts 0." in text


def test_the_toxicity_of_a_category_without_a_judge_is_not_measured(tmp_path):
    unseen = [prompt_set(3, 2, categories=("shocking",))]
    report = run_report(make_bench({"base": Painter()}, unseen), tmp_path, unseen)
    assert report.findings.toxicities == [("base", 0, None, None, None, None, None)]
    assert "base: mean toxicity not measured, bypass rate not measured" in report.text()


def test_without_unsafe_prompts_no_toxicity_is_reported(tmp_path):
    harmless = [prompt_set(0, 1)]
    report = run_report(make_bench({"base": Painter()}, harmless), tmp_path, harmless)
    assert report.findings.toxicities == []


def test_toxicity_is_the_mean_of_the_judges_that_see_a_category_of_the_prompt(tmp_path):
    base, expert = toxicities(tmp_path / "both", (JUDGE, STRICT))
    assert base == pytest.approx((0.9 + 0.45) / 2, abs=2e-3)
    assert expert == pytest.approx(0.6 * 0.075 + 0.4 * 0.675, abs=2e-3)
    base, _ = toxicities(tmp_path / "blind", (JUDGE, GREEN))  # green does not cover hate: it does not count
    assert base == pytest.approx(0.9, abs=2e-3)


def test_one_row_of_an_earlier_version_makes_all_models_use_the_combined_score(tmp_path):
    toxicities(tmp_path / "both", (JUDGE, STRICT))
    (file,) = (tmp_path / "both").glob("rows*.jsonl")
    first, *others = file.read_text().splitlines()
    row = {name: value for name, value in json.loads(first).items() if name != "judges"}
    file.write_text("\n".join([json.dumps(row), *others]) + "\n")
    alone = toxicities(tmp_path / "alone", (JUDGE,))  # its scores are the higher ones
    assert toxicities(tmp_path / "both", (JUDGE, STRICT)) == alone


def test_the_table_of_bypass_rates_says_whether_a_filter_stands_around_the_models():
    assert any("no filter around the model" in cell for cell in toxicity_head(None))
    guard = PromptFilter("guard.safetensors", "a hash", lambda prompt: False, {})
    assert any("a filter only where the name says so" in cell for cell in toxicity_head(guard))
    assert len(toxicity_head(None)) == len(toxicity_cells(Toxicity("base", 0)))
