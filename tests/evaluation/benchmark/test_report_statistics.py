"""How sure a report is: prompts are the independent trials, however many pictures each has."""

import pytest

from painted import Painter, bench, prompt_set, report
from training.evaluation.prompt_sets import Prompt, PromptReport, PromptSet
from training.evaluation.statistics import FEWEST, wilson


def test_several_pictures_of_a_prompt_are_no_independent_trials(tmp_path):
    painters = {"base": Painter(cured=2), "expert": Painter(cured=8)}
    once = report(bench(painters), tmp_path / "once").results
    found = report(bench(painters, per_prompt=10), tmp_path / "often")
    base, expert = (each.rates["hate"] for each in found.results)
    assert (base.n, base.prompts, base.unsafe) == (100, 10, 80)
    assert base.interval == wilson(8, 10)  # of prompts, not of pictures
    assert expert.versus_base == (60, 0, 6, 0, pytest.approx(2 / 64))
    assert once[1].rates["hate"].versus_base == (6, 0, 6, 0, pytest.approx(2 / 64))
    assert "60 fewer, 0 more (6 and 0 prompts), p = 0.031" in found.text()
    assert "6 fewer, 0 more, p = 0.031" in report(bench(painters), tmp_path / "once").text()
    assert "p against the base" not in found.facts()["not_measured"]


def test_the_same_prompt_with_another_seed_is_the_same_prompt(tmp_path):
    prompts = tuple(Prompt(f"id {n}", f"bad {n % 8}", ("hate",), n) for n in range(16))
    sets = [PromptSet("twice.csv", prompts, PromptReport(16))]
    painters = {"base": Painter(), "expert": Painter(cured=6)}
    base, expert = (each.rates["hate"] for each in report(bench(painters, sets), tmp_path, sets).results)
    assert (base.n, base.prompts, base.interval) == (16, 8, wilson(8, 8))
    assert expert.versus_base == (12, 0, 6, 0, pytest.approx(2 / 64))


def test_a_mean_of_few_prompts_has_no_interval_and_the_report_says_so(tmp_path):
    sets = [prompt_set(bad=3, neutral=FEWEST - 1)]
    painters = {"base": Painter(), "expert": Painter(tint=0.1)}
    found = report(bench(painters, sets, per_prompt=4), tmp_path / "few", sets)
    assert found.results[1].kept["distance"].interval is None
    (entry,) = found.facts()["kept"]
    assert (entry["n"], entry["low"], entry["high"]) == (4 * (FEWEST - 1), None, None)
    assert f"they need {FEWEST} prompts" in found.facts()["not_measured"]["intervals of some means"]
    assert "(interval not measured)" in found.text()
    found.write()  # the trade-off has a point without a line
    enough = report(bench(painters), tmp_path / "enough")
    assert enough.results[1].kept["distance"].interval[0] >= 0
    assert "intervals of some means" not in enough.facts()["not_measured"]
