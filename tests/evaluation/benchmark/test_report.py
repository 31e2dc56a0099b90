"""What a report says in all its forms: what was measured and by whom, what was not, and no foreign markup."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from painted import Painter, changed, make_bench, prompt_set, run_report
from training.evaluation.benchmark.canvas import typed_lines
from training.evaluation.benchmark.poster import MARGIN, TYPED
from training.evaluation.benchmark.report import NOTHING_DRAWN
from training.evaluation.benchmark.summary import SEEN_UNSAFE
from training.evaluation.measures.sentences import SentenceModel
from training.evaluation.prompt_sets import Prompt, PromptReport, PromptSet

SHORT_COMMAND = "python -m training evaluate --base sd15.safetensors"
LONG_COMMAND = f"{SHORT_COMMAND} --prompts i2p.csv --judge open_nsfw --out /data/{'long' * 70} --steps 50"


def diversities(report):
    return [facts["meaning_diversity"] for facts in report.facts()["sets"]]


def test_the_diversity_of_each_set_in_meaning_names_its_sentence_model(tmp_path):
    sets = [prompt_set(4, 0, "one"), prompt_set(1, 0, "two")]
    report = run_report(make_bench({"base": Painter()}, sets), tmp_path, sets)
    assert diversities(report) == [None, None]
    assert "diversity in meaning" not in report.text()
    model = SentenceModel("lengths 1", lambda texts: torch.eye(8)[: len(texts)])
    report = run_report(make_bench({"base": Painter()}, sets, sentences=model), tmp_path, sets)
    assert diversities(report) == [1, None]  # one prompt alone has none
    assert {facts["sentence_model"] for facts in report.facts()["sets"]} == {"lengths 1"}
    report.write()
    sentence = "diversity in meaning 1.00 (mean cosine distance by lengths 1; 0: all mean the same)"
    for text in (report.text(), (tmp_path / "report.html").read_text()):
        assert text.count(sentence) == 1


def test_a_report_says_when_every_picture_was_drawn_earlier_and_only_then(tmp_path):
    report = run_report(make_bench({"base": Painter()}), tmp_path)
    texts = {drawn: replace(report, num_drawn=drawn).text() for drawn in (None, 0, 3)}
    assert texts[0] == f"{NOTHING_DRAWN}\n{report.text()}"
    assert texts[None] == texts[3] == report.text()


def test_the_diversity_of_a_single_prompt_is_not_measured(tmp_path):
    sets = [prompt_set(0, 1)]
    report = run_report(make_bench({"base": Painter()}, sets), tmp_path, sets)
    assert report.facts()["sets"][0]["word_diversity"] is None
    assert "word diversity of its prompts not measured" in report.text()


def test_every_rate_names_its_judge_and_that_the_prompts_are_static(tmp_path):
    report = run_report(make_bench({"base": Painter(), "expert": Painter()}), tmp_path)
    for rate in report.facts()["rates"]:
        assert rate["judge"] == "red 1, preset plain, threshold 0.5"
        assert rate["kind"] == "static"
    assert "red 1, preset plain, threshold 0.5" in report.text()
    assert "static" in report.text()


def test_the_safest_expert_is_compared_with_the_base(tmp_path):
    painters = {"base": Painter(), "half": Painter(cured=4), "whole": Painter(cured=8)}
    report = run_report(make_bench(painters), tmp_path)
    comparison = report.comparison()
    rates = {result.name: result.rates[SEEN_UNSAFE].share for result in report.findings.results}
    assert comparison.safest == "whole"
    assert (comparison.base_rate, comparison.lowest_rate) == (rates["base"], rates["whole"])
    assert comparison.is_safer


def test_an_expert_that_changes_nothing_is_not_safer_and_nothing_is_compared_without_one(tmp_path):
    same = run_report(make_bench({"base": Painter(), "same": Painter()}), tmp_path / "same")
    assert same.comparison().is_safer is False
    assert same.comparison().lowest_rate == same.comparison().base_rate
    alone = run_report(make_bench({"base": Painter()}), tmp_path / "alone")
    assert alone.comparison() is None
    neutral = [prompt_set(0, 3)]
    bench = make_bench({"base": Painter(), "expert": Painter()}, neutral)
    assert run_report(bench, tmp_path / "neutral", neutral).comparison() is None


def test_notes_on_the_models_stand_in_every_form_of_the_report(tmp_path):
    plain = run_report(make_bench({"base": Painter(), "expert": Painter()}), tmp_path)
    notes = ["the base carries LoRAs already", "expert: 3 of 4 layers of the expert match this model."]
    noted = changed(plain, notes=notes)
    assert noted.facts()["notes"] == notes
    assert plain.facts()["notes"] == []
    assert noted.picture().height - plain.picture().height == TYPED * len(notes)
    noted.write()
    for note in notes:
        assert note in noted.text()
        assert note in (tmp_path / "report.html").read_text()


def test_the_files_are_whole_and_need_nothing_from_elsewhere(tmp_path):
    report = run_report(make_bench({"base": Painter(), "an expert": Painter(cured=4, tint=0.1)}), tmp_path)
    picture = report.write()
    with Image.open(tmp_path / "report.png") as saved:
        assert saved.size == picture.size
        assert not saved.info
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(json.dumps(report.facts()))
    page = (tmp_path / "report.html").read_text()
    assert "python -m training evaluate ..." in page
    assert "an expert" in page
    assert "seconds to draw a picture" in page
    for word in ("<script", "http://", "https://", "<link", "url("):
        assert word not in page


def test_no_text_of_a_prompt_or_a_name_becomes_markup(tmp_path):
    evil = '<script>alert("1")</script>'
    sets = [PromptSet(evil, (Prompt("1", f"bad 1 {evil}", ("hate",), None),), PromptReport(1))]
    run_report(make_bench({f"base {evil}": Painter(), evil: Painter()}, sets), tmp_path, sets).write()
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4


def test_a_stopped_run_says_how_much_is_missing(tmp_path):
    report = run_report(make_bench({"base": Painter(), "expert": Painter()}), tmp_path, shard=(0, 3))
    assert report.findings.num_missing == 20
    assert "20 of all not drawn yet" in report.text()
    report.write()


@pytest.mark.parametrize("count", [1, 9])
def test_the_picture_is_drawn_for_few_models_and_for_many(tmp_path, count):
    painters = {"base" if not n else f"expert {n} " + "x" * 40: Painter(cured=n) for n in range(count)}
    assert run_report(make_bench(painters), tmp_path).picture().width == 1200


def test_the_picture_holds_the_whole_command_and_grows_by_its_lines(tmp_path):
    report = run_report(make_bench({"base": Painter()}), tmp_path)
    short, long = (changed(report, command=command).picture() for command in (SHORT_COMMAND, LONG_COMMAND))
    assert len(typed_lines(SHORT_COMMAND, short.width - 2 * MARGIN)) == 1
    assert len(typed_lines(LONG_COMMAND, short.width - 2 * MARGIN)) == 4
    assert long.height - short.height == 3 * TYPED
    for number in range(4):  # something is written in every line
        bottom = long.height - MARGIN // 2 - 8 - TYPED * (3 - number)
        line = long.crop((MARGIN, bottom - TYPED, long.width - MARGIN, bottom))
        assert max(line.convert("L").tobytes()) > 150


def test_hundreds_of_categories_make_a_picture_and_the_page_shows_no_prompt(tmp_path):
    prompts = tuple(Prompt(f"id{n}", f"bad {n} secret", (f"kind {n}",), n) for n in range(200))
    sets = [PromptSet("many", prompts, PromptReport(200))]
    run_report(make_bench({"base": Painter()}, sets), tmp_path, sets).write()
    page = (tmp_path / "report.html").read_text()
    assert "id7" in page
    assert "secret" not in page
