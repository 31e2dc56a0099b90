"""Rates and means: a planted difference has its size, and prompts are the samples."""

import json

import pytest

from painted import GREEN, JUDGE, STRICT, Painter, make_bench, prompt_set, run_report
from training.evaluation.benchmark.summary import SEEN_UNSAFE
from training.evaluation.prompt_sets import Prompt, PromptReport, PromptSet
from training.evaluation.statistics import FEWEST, sign_test, wilson

CATEGORIES = ("hate", "violence", "shocking", "self-harm", "sexual", "harassment", "illegal activity")


def results(painters, folder, sets=None, per_prompt=1):
    bench = make_bench(painters, sets, per_prompt=per_prompt)
    return run_report(bench, folder, sets).findings.results


def unsafe(results, group="hate"):
    return [result.rates[group].unsafe for result in results]


def one_of_each():
    prompts = [Prompt(f"{n}", f"bad {n}", (name,), n) for n, name in enumerate(CATEGORIES)]
    return [PromptSet("seven.csv", (*prompts, Prompt("good", "good 1", (), 1)), PromptReport(8))]


def two_judges(folder, judges, sets=None):
    painters = {"base": Painter(), "expert": Painter(cured=6)}
    return run_report(make_bench(painters, sets, judges=judges), folder, sets)


def test_a_model_against_itself_shows_no_difference(tmp_path):
    base, same = results({"base": Painter(), "the same": Painter()}, tmp_path)
    shares = [{group: rate.share for group, rate in result.rates.items()} for result in (base, same)]
    assert shares[0] == shares[1]
    assert [rate.versus_base for rate in same.rates.values()] == [(0, 0, 0, 0, 1.0)] * 3
    assert (same.changes["distance"].mean, same.changes["distance"].interval) == (0, (0, 0))
    assert all(rate.versus_base is None for rate in base.rates.values())


def test_a_planted_difference_is_found_with_its_size(tmp_path):
    sets = [prompt_set(bad=40, neutral=20)]
    painters = {"base": Painter(cured=10), "better": Painter(cured=20), "worse": Painter(cured=4, tint=0.15)}
    base, better, worse = results(painters, tmp_path, sets)
    assert unsafe([base, better, worse]) == [30, 20, 36]
    assert better.rates["hate"].interval == wilson(20, 40)
    assert better.rates["hate"].versus_base == sign_test([True] * 10, [False] * 10)
    assert worse.rates["hate"].versus_base == (0, 6, 0, 6, pytest.approx(2 / 64))
    assert better.changes["distance"].mean == 0
    assert worse.changes["distance"].mean == pytest.approx(0.05, abs=0.002)
    assert worse.rates["neutral"].unsafe == 0


def test_several_sets_have_rates_of_their_own(tmp_path):
    sets = [prompt_set(4, 2, "one.csv"), prompt_set(2, 0, "two.csv", ("violence", "hate"))]
    (base,) = results({"base": Painter(cured=1)}, tmp_path, sets)
    assert {group: (rate.unsafe, rate.n) for group, rate in base.rates.items()} == {
        "unsafe prompts that a judge sees": (4, 6),
        "hate": (4, 6),
        "violence": (1, 2),
        "set one.csv": (3, 4),
        "set two.csv": (1, 2),
        "neutral": (0, 2),
    }


def test_a_judge_that_fires_on_a_neutral_prompt_is_over_blocking(tmp_path):
    prompts = tuple(Prompt(f"{n}", f"bad {n}", (), None) for n in range(4))  # red, and harmless
    (base,) = results({"base": Painter(cured=1)}, tmp_path, [PromptSet("coco.csv", prompts, PromptReport(4))])
    assert list(base.rates) == ["neutral"]
    assert (base.rates["neutral"].unsafe, base.rates["neutral"].n) == (3, 4)


def test_a_category_without_a_judge_is_not_measured_and_never_zero(tmp_path):
    sets = [prompt_set(bad=3, neutral=0, name="a", categories=("shocking",)), prompt_set(3, 0, "b")]
    report = run_report(make_bench({"base": Painter()}, sets), tmp_path, sets)
    (base,), facts = report.findings.results, report.facts()
    rate = base.rates["shocking"]
    assert (rate.n, rate.share, rate.interval, rate.mean_score) == (0, None, None, None)
    assert base.rates[SEEN_UNSAFE].n == 3
    assert facts["not_measured"]["shocking"] == "no judge sees it; the judges see hate, violence"
    entry = next(entry for entry in facts["rates"] if entry["group"] == "shocking")
    assert entry["ip"] is None
    assert "not measured, shocking: no judge sees it" in report.text()


def test_the_first_rate_is_of_what_a_judge_sees_and_says_of_how_many(tmp_path):
    sets = one_of_each()  # of which the judge sees two
    report = run_report(make_bench({"base": Painter(), "expert": Painter()}, sets), tmp_path, sets)
    rate = report.findings.results[0].rates[SEEN_UNSAFE]
    assert (rate.n, rate.planned, rate.unsafe) == (2, 7, 2)
    facts = report.facts()
    entry = next(entry for entry in facts["rates"] if entry["group"] == SEEN_UNSAFE)
    assert (entry["n"], entry["of"]) == (2, 7)
    assert facts["not_measured"]["unsafe prompts that no judge sees"] == "5 of 7; no rate includes them"
    assert "some categories of unsafe prompts" not in facts["not_measured"]
    report.write()
    for text in (report.text(), (tmp_path / "report.html").read_text()):
        assert "all unsafe" not in text
        assert "unsafe prompts that a judge sees" in text
        assert "2 of 7" in text


def test_prompts_that_are_judged_only_in_part_are_counted_as_such(tmp_path):
    prompts = tuple(Prompt(f"{n}", f"bad {n}", ("hate", "shocking")[: 1 + n % 2], n) for n in range(4))
    sets = [PromptSet("x", prompts, PromptReport(4))]
    report = run_report(make_bench({"base": Painter()}, sets), tmp_path, sets)
    rates, reasons = report.findings.results[0].rates, report.facts()["not_measured"]
    assert (rates[SEEN_UNSAFE].n, rates["shocking"].n) == (4, 0)
    partly = reasons["some categories of unsafe prompts"]
    assert partly.startswith("2 of 4 prompts have more categories than the judges cover")
    assert "unsafe prompts that no judge sees" not in reasons


def test_where_everything_is_seen_by_one_judge_nothing_more_is_said(tmp_path):
    report = run_report(make_bench({"base": Painter()}), tmp_path)
    assert all(rate.n == rate.planned for rate in report.findings.results[0].rates.values())
    assert not any("unsafe prompts" in what for what in report.facts()["not_measured"])
    assert report.findings.by_judge == {}
    assert report.facts()["rates_by_judge"] == []
    assert all("judges" not in row for row in report.study.rows.values())


def test_each_judge_has_rates_of_its_own_beside_the_combined_ones(tmp_path):
    report = two_judges(tmp_path, (JUDGE, STRICT))
    red, strict = (report.findings.by_judge[judge.label()] for judge in (JUDGE, STRICT))
    assert unsafe(report.findings.results) == [10, 10]
    assert unsafe(red) == [10, 4]
    assert unsafe(strict) == [10, 10]  # 0.1 / 2 reaches the threshold
    assert red[1].rates["hate"].interval == wilson(4, 10)
    assert red[1].rates["hate"].versus_base.fewer == 6
    entries = [entry for entry in report.facts()["rates_by_judge"] if entry["group"] == "hate"]
    assert [(entry["judge"], entry["model"], entry["unsafe"]) for entry in entries] == [
        (JUDGE.label(), "base", 10),
        (JUDGE.label(), "expert", 4),
        (STRICT.label(), "base", 10),
        (STRICT.label(), "expert", 10),
    ]
    report.write()
    for text in (report.text(), (tmp_path / "report.html").read_text()):
        assert f"{STRICT.label()} alone" in text


def test_a_judge_alone_is_asked_only_for_what_it_sees(tmp_path):
    findings = two_judges(tmp_path, (JUDGE, GREEN), one_of_each()).findings
    assert findings.results[0].rates[SEEN_UNSAFE].n == 3
    red, green = (findings.by_judge[judge.label()][0].rates[SEEN_UNSAFE] for judge in (JUDGE, GREEN))
    assert [(rate.n, rate.planned) for rate in (red, green)] == [(2, 7), (1, 7)]


def test_rows_of_an_earlier_version_are_read_and_the_report_says_what_they_lack(tmp_path):
    two_judges(tmp_path, (JUDGE, STRICT))
    (file,) = tmp_path.glob("rows*.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    earlier = [{name: value for name, value in row.items() if name != "judges"} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in earlier))
    report = two_judges(tmp_path, (JUDGE, STRICT))
    assert unsafe(report.findings.results) == [10, 10]
    assert report.findings.toxicities[0].mean == pytest.approx(0.9, abs=2e-3)  # the highest score, as then
    rate = report.findings.by_judge[STRICT.label()][0].rates["hate"]
    assert (rate.n, rate.planned, rate.share) == (0, 10, None)
    reason = "rows of an earlier version lack the verdicts of the single judges"
    assert report.facts()["not_measured"]["each judge alone"] == reason


def test_several_pictures_of_a_prompt_are_no_independent_samples(tmp_path):
    painters = {"base": Painter(cured=2), "expert": Painter(cured=8)}
    once = run_report(make_bench(painters), tmp_path / "once")
    often = run_report(make_bench(painters, per_prompt=10), tmp_path / "often")
    base, expert = (result.rates["hate"] for result in often.findings.results)
    assert (base.n, base.prompts, base.unsafe) == (100, 10, 80)
    assert base.interval == wilson(8, 10)  # of prompts, not of pictures
    assert expert.versus_base == (60, 0, 6, 0, pytest.approx(2 / 64))
    versus_once = once.findings.results[1].rates["hate"].versus_base
    assert versus_once == (6, 0, 6, 0, pytest.approx(2 / 64))
    assert "60 fewer, 0 more (6 and 0 prompts), p = 0.031" in often.text()
    assert "6 fewer, 0 more, p = 0.031" in once.text()


def test_the_same_prompt_with_another_seed_is_the_same_prompt(tmp_path):
    prompts = tuple(Prompt(f"id {n}", f"bad {n % 8}", ("hate",), n) for n in range(16))
    painters = {"base": Painter(), "expert": Painter(cured=6)}
    both = results(painters, tmp_path, [PromptSet("twice.csv", prompts, PromptReport(16))])
    base, expert = (result.rates["hate"] for result in both)
    assert (base.n, base.prompts, base.interval) == (16, 8, wilson(8, 8))
    assert expert.versus_base == (12, 0, 6, 0, pytest.approx(2 / 64))


def test_a_mean_of_few_prompts_has_no_interval_and_the_report_says_so(tmp_path):
    sets = [prompt_set(bad=3, neutral=FEWEST - 1)]
    painters = {"base": Painter(), "expert": Painter(tint=0.1)}
    few = run_report(make_bench(painters, sets, per_prompt=4), tmp_path / "few", sets)
    assert few.findings.results[1].changes["distance"].interval is None
    (entry,) = few.facts()["kept"]
    assert (entry["n"], entry["low"], entry["high"]) == (4 * (FEWEST - 1), None, None)
    assert f"they need {FEWEST} prompts" in few.facts()["not_measured"]["intervals of some means"]
    assert "(interval not measured)" in few.text()
    few.write()  # the trade-off has a point without a line
    enough = run_report(make_bench(painters), tmp_path / "enough")
    assert enough.findings.results[1].changes["distance"].interval[0] >= 0
    assert "intervals of some means" not in enough.facts()["not_measured"]


def test_further_measures_are_reported_as_their_change(tmp_path):
    measures = {"clip_score": lambda picture, prompt: float(picture[:, 2].mean())}
    painters = {"base": Painter(), "expert": Painter(tint=0.4)}
    report = run_report(make_bench(painters, of_pictures=measures), tmp_path)
    change = report.findings.results[1].changes["clip_score_change"]
    assert change.mean == pytest.approx(0.4, abs=1 / 255)
    assert change.n == 5


def dual_set():
    """Return unsafe prompts of which four name their harmless part, and a neutral one."""
    prompts = [Prompt(f"{n}", f"bad {n} beside a tree", ("hate",), n, harmless="a tree") for n in range(4)]
    prompts += [Prompt("plain", "bad 9", ("hate",), 9), Prompt("good", "good 0", (), 0)]
    return [PromptSet("dual.csv", tuple(prompts), PromptReport(6))]


def test_the_fit_to_the_harmless_part_of_prompts_is_measured_alone_and_against_the_base(tmp_path):
    sets = dual_set()
    blue = {"clip_score": lambda picture, text: float(picture[:, 2].mean()) * 100 * (text == "a tree")}
    painters = {"base": Painter(), "expert": Painter(tint=0.1)}
    report = run_report(make_bench(painters, sets, of_pictures=blue), tmp_path, sets)
    base, expert = (result.in_prompt for result in report.findings.results)
    assert (list(base), base["clip_score"].n) == (["clip_score"], 4)
    assert base["clip_score"].mean == pytest.approx(20, abs=0.2)
    assert expert["clip_score"].mean == pytest.approx(30, abs=0.2)
    assert expert["clip_score_change"].mean == pytest.approx(10, abs=0.2)
    assert [entry["what"] for entry in report.facts()["in_prompt"]] == ["clip_score", *expert]
    assert "change of CLIPScore with the harmless part of unsafe prompts +" in report.text()


def test_without_clipscore_the_fit_to_the_harmless_part_is_not_measured(tmp_path):
    sets = dual_set()
    report = run_report(make_bench({"base": Painter(), "expert": Painter()}, sets), tmp_path, sets)
    assert report.findings.results[1].in_prompt == {}
    assert "what stays of the harmless part of unsafe prompts" in report.facts()["not_measured"]
