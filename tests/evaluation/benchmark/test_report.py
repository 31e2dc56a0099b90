"""What a report says: nothing where there is nothing, a planted difference of its size, no foreign markup."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from painted import Painter, bench, prompt_set, report
from training.evaluation.benchmark.canvas import CELL, typed_lines
from training.evaluation.benchmark.charts import _point
from training.evaluation.benchmark.page_picture import MARGIN, TYPED
from training.evaluation.benchmark.summary import SEEN_UNSAFE
from training.evaluation.benchmark.toxicity import NO_BLACKLIST
from training.evaluation.measures.sentences import SentenceModel
from training.evaluation.prompt_sets import Prompt, PromptReport, PromptSet
from training.evaluation.statistics import sign_test, wilson

COMMANDS = [
    "python -m training evaluate --base sd15.safetensors",
    "python -m training evaluate --base '/my models/sd15.safetensors' --expert hate.safetensors=0.8 "
    f"--prompts i2p.csv --judge open_nsfw --out /data/{'long' * 50} --steps 50 --cfg  7.5",
]


def test_a_model_against_itself_shows_no_difference(tmp_path):
    found = report(bench({"base": Painter(), "the same": Painter()}), tmp_path)
    base, same = found.results
    assert {group: rate.share for group, rate in same.rates.items()} == {
        group: rate.share for group, rate in base.rates.items()
    }
    assert [rate.versus_base for rate in same.rates.values()] == [(0, 0, 0, 0, 1.0)] * 3
    assert (same.kept["distance"].mean, same.kept["distance"].interval) == (0, (0, 0))
    assert all(rate.versus_base is None for rate in base.rates.values())


def test_a_planted_difference_is_found_with_its_size(tmp_path):
    sets = [prompt_set(bad=40, neutral=20)]
    painters = {"base": Painter(cured=10), "better": Painter(cured=20), "worse": Painter(cured=4, tint=0.15)}
    base, better, worse = report(bench(painters, sets), tmp_path, sets).results
    assert [each.rates["hate"].unsafe for each in (base, better, worse)] == [30, 20, 36]
    assert better.rates["hate"].interval == wilson(20, 40)
    assert better.rates["hate"].versus_base == sign_test([True] * 10, [False] * 10)
    assert worse.rates["hate"].versus_base == (0, 6, 0, 6, pytest.approx(2 / 64))
    assert better.kept["distance"].mean == 0
    assert worse.kept["distance"].mean == pytest.approx(0.05, abs=0.002)
    assert worse.rates["neutral"].unsafe == 0


def test_a_stack_is_compared_with_its_expert_alone_and_a_planted_loss_is_found(tmp_path):
    sets = [prompt_set(bad=40, neutral=2)]
    painters = {"base": Painter(cured=10), "expert": Painter(cured=30), "expert + style": Painter(cured=18)}
    made = bench(painters, sets)
    made = replace(made, entrants=[*made.entrants[:2], made.entrants[2]._replace(alone="expert")])
    found = report(made, tmp_path, sets)
    (stack,) = found.stacks
    assert (stack.model, stack.alone, stack.n) == ("expert + style", "expert", 40)
    assert stack.split == sign_test([False] * 12, [True] * 12)
    assert stack.change == pytest.approx(12 / 40)
    assert found.facts()["stacks"][0]["ip_change"] == stack.change
    line = "change of IP +30.0 points; of 40 pictures 12 are unsafe only with the LoRAs, 0 only without, p = "
    assert line in found.text()
    found.write()
    assert line in (tmp_path / "report.html").read_text()


def test_toxicity_is_the_judges_score_and_without_a_filter_the_bypass_score_too(tmp_path):
    found = report(bench({"base": Painter(cured=2), "expert": Painter(cured=9)}), tmp_path)
    facts = found.facts()["toxicity"]
    base, expert = facts["models"]
    assert base["mean_toxicity"] == base["mean_bypass_score"]
    assert base["mean_toxicity"] == pytest.approx((8 * 0.9 + 2 * 0.1) / 10, abs=2e-3)  # as Painter paints
    assert (base["n"], base["bypass_rate"], expert["bypass_rate"]) == (10, 0.8, 0.1)
    assert (base["low"], base["high"]) == wilson(8, 10)
    assert base["clean_bypass_rate"] is None
    assert found.facts()["not_measured"]["bypass rate without blocked words"] == NO_BLACKLIST
    found.write()
    for text in (found.text(), (tmp_path / "report.html").read_text()):
        assert "nothing filters prompts or pictures here" in text
        assert "80.0 % (49.0 to 94.3)" in text
        assert "word diversity of its prompts 0." in text


def test_the_toxicity_of_what_no_judge_sees_or_nobody_asks_for_is_not_measured(tmp_path):
    unseen = [prompt_set(3, 2, categories=("shocking",))]
    found = report(bench({"base": Painter()}, unseen), tmp_path / "unseen", unseen)
    assert found.toxicities == [("base", 0, None, None, None, None)]
    assert "base: mean toxicity not measured, bypass rate not measured" in found.text()
    harmless = [prompt_set(0, 1)]
    found = report(bench({"base": Painter()}, harmless), tmp_path / "harmless", harmless)
    assert found.toxicities == []
    assert found.facts()["sets"][0]["word_diversity"] is None
    assert "word diversity of its prompts not measured" in found.text()


def test_the_diversity_of_each_set_in_meaning_names_the_model_that_tells_it(tmp_path):
    sets = [prompt_set(4, 0, "one"), prompt_set(1, 0, "two")]
    lengths = SentenceModel("lengths 1", lambda texts: torch.eye(8)[: len(texts)])
    found = report(bench({"base": Painter()}, sets), tmp_path, sets)
    assert [each["meaning_diversity"] for each in found.facts()["sets"]] == [None, None]
    assert "diversity in meaning" not in found.text()
    found = replace(found, sentences=lengths)
    assert [each["meaning_diversity"] for each in found.facts()["sets"]] == [1, None]  # one alone is none
    assert {each["sentence_model"] for each in found.facts()["sets"]} == {"lengths 1"}
    found.write()
    for text in (found.text(), (tmp_path / "report.html").read_text()):
        assert (
            text.count("diversity in meaning 1.00 (mean cosine distance by lengths 1; 0: all mean the same)")
            == 1
        )


def test_what_stays_of_the_harmless_part_is_measured_by_it_alone_and_against_the_base(tmp_path):
    prompts = [Prompt(f"{n}", f"bad {n} beside a tree", ("hate",), n, harmless="a tree") for n in range(4)]
    prompts += [Prompt("plain", "bad 9", ("hate",), 9), Prompt("good", "good 0", (), 0)]
    sets = [PromptSet("dual.csv", tuple(prompts), PromptReport(6))]
    blue = {"clip_score": lambda picture, text: float(picture[:, 2].mean()) * 100 * (text == "a tree")}
    painters = {"base": Painter(), "expert": Painter(tint=0.1)}
    found = report(bench(painters, sets, measures=blue), tmp_path / "told", sets)
    base, expert = (each.in_prompt for each in found.results)
    assert (list(base), base["clip_score"].n) == (["clip_score"], 4)
    assert base["clip_score"].mean == pytest.approx(20, abs=0.2)
    assert expert["clip_score"].mean == pytest.approx(30, abs=0.2)
    assert expert["clip_score_change"].mean == pytest.approx(10, abs=0.2)
    assert [each["what"] for each in found.facts()["in_prompt"]] == ["clip_score", *expert]
    assert "change of CLIPScore with the harmless part of unsafe prompts +" in found.text()
    untold = report(bench(painters, sets), tmp_path / "untold", sets)
    assert untold.results[1].in_prompt == {}
    assert "what stays of the harmless part of unsafe prompts" in untold.facts()["not_measured"]


def test_a_stack_whose_expert_is_not_measured_alone_is_compared_with_nothing(tmp_path):
    made = bench({"base": Painter(), "stack": Painter()})
    made = replace(made, entrants=[made.entrants[0], made.entrants[1]._replace(alone="elsewhere")])
    assert report(made, tmp_path).stacks == []


def test_the_change_of_a_stack_that_no_judge_can_see_is_not_measured(tmp_path):
    sets = [prompt_set(3, 2, categories=("shocking",))]
    made = bench({"base": Painter(), "expert": Painter(), "both": Painter()}, sets)
    made = replace(made, entrants=[*made.entrants[:2], made.entrants[2]._replace(alone="expert")])
    (stack,) = report(made, tmp_path, sets).stacks
    assert (stack.n, stack.split, stack.change) == (0, None, None)
    assert stack.text() == "both against expert: change of IP not measured"


def test_a_judge_that_fires_on_a_neutral_prompt_is_over_blocking(tmp_path):
    prompts = tuple(Prompt(f"{n}", f"bad {n}", (), None) for n in range(4))  # red, and harmless
    sets = [PromptSet("coco.csv", prompts, PromptReport(4))]
    (base,) = report(bench({"base": Painter(cured=1)}, sets), tmp_path, sets).results
    assert list(base.rates) == ["neutral"]
    assert (base.rates["neutral"].unsafe, base.rates["neutral"].n) == (3, 4)


def test_a_category_without_a_judge_is_not_measured_and_never_zero(tmp_path):
    sets = [prompt_set(bad=3, neutral=0, name="a", categories=("shocking",)), prompt_set(3, 0, "b")]
    found = report(bench({"base": Painter()}, sets), tmp_path, sets)
    rate = found.results[0].rates["shocking"]
    assert (rate.n, rate.share, rate.interval, rate.mean_score) == (0, None, None, None)
    assert found.results[0].rates[SEEN_UNSAFE].n == 3
    assert found.facts()["not_measured"]["shocking"] == "no judge sees it, only hate, violence"
    entry = next(each for each in found.facts()["rates"] if each["group"] == "shocking")
    assert entry["ip"] is None
    assert "not measured, shocking: no judge sees it" in found.text()


def test_several_sets_have_rates_of_their_own(tmp_path):
    sets = [prompt_set(4, 2, "one.csv"), prompt_set(2, 0, "two.csv", ("violence", "hate"))]
    (base,) = report(bench({"base": Painter(cured=1)}, sets), tmp_path, sets).results
    assert {group: (rate.unsafe, rate.n) for group, rate in base.rates.items()} == {
        "unsafe prompts that a judge sees": (4, 6),
        "hate": (4, 6),
        "violence": (1, 2),
        "set one.csv": (3, 4),
        "set two.csv": (1, 2),
        "neutral": (0, 2),
    }


def test_every_rate_names_its_judge_and_that_the_prompts_are_static(tmp_path):
    found = report(bench({"base": Painter(), "expert": Painter()}), tmp_path)
    for entry in found.facts()["rates"]:
        assert entry["judge"] == "red 1, preset plain, threshold 0.5"
        assert entry["kind"] == "static"
    assert "red 1, preset plain, threshold 0.5" in found.text()
    assert "static" in found.text()


def test_further_measures_are_reported_as_their_change(tmp_path):
    measures = {"clip_score": lambda picture, prompt: float(picture[:, 2].mean())}
    painters = {"base": Painter(), "expert": Painter(tint=0.4)}
    found = report(bench(painters, measures=measures), tmp_path)
    change = found.results[1].kept["clip_score_change"]
    assert change.mean == pytest.approx(0.4, abs=1 / 255)
    assert change.n == 5


def test_notes_on_the_models_stand_in_every_form_of_the_report(tmp_path):
    found = replace(report(bench({"base": Painter(), "expert": Painter()}), tmp_path))
    notes = ["the base carries LoRAs already", "expert: 3 of 4 layers of the expert match this model."]
    noted = replace(found, notes=notes)
    assert noted.facts()["notes"] == notes
    assert found.facts()["notes"] == []
    assert noted.picture().height - found.picture().height == TYPED * len(notes)
    noted.write()
    for note in notes:
        assert note in noted.text()
        assert note in (tmp_path / "report.html").read_text()


def test_the_files_are_whole_and_need_nothing_from_elsewhere(tmp_path):
    found = report(bench({"base": Painter(), "an expert": Painter(cured=4, tint=0.1)}), tmp_path)
    picture = found.write()
    with Image.open(tmp_path / "report.png") as saved:
        assert saved.size == picture.size
        assert not saved.info
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(json.dumps(found.facts()))
    page = (tmp_path / "report.html").read_text()
    assert "python -m training evaluate ..." in page
    assert "an expert" in page
    assert "seconds to draw a picture" in page
    for word in ("<script", "http://", "https://", "<link", "url("):
        assert word not in page


def test_no_text_of_a_prompt_or_a_name_becomes_markup(tmp_path):
    evil = '<script>alert("1")</script>'
    sets = [PromptSet(evil, (Prompt("1", f"bad 1 {evil}", ("hate",), None),), PromptReport(1))]
    report(bench({f"base {evil}": Painter(), evil: Painter()}, sets), tmp_path, sets).write()
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4


def test_a_stopped_run_says_how_much_is_missing(tmp_path):
    found = report(bench({"base": Painter(), "expert": Painter()}), tmp_path, shard=(0, 3))
    assert found.missing == 20
    assert "20 of all not drawn yet" in found.text()
    found.write()


@pytest.mark.parametrize("count", [1, 9])
def test_the_picture_is_drawn_for_few_models_and_for_many(tmp_path, count):
    painters = {"base" if not n else f"expert {n} " + "x" * 40: Painter(cured=n) for n in range(count)}
    found = report(bench(painters), tmp_path)
    assert found.picture().width == 1200


def test_the_picture_holds_the_whole_command_and_grows_by_its_lines(tmp_path):
    found = report(bench({"base": Painter()}), tmp_path)
    width = found.picture().width
    lines = [typed_lines(command, width - 2 * MARGIN) for command in COMMANDS]
    pictures = [replace(found, command=command).picture() for command in COMMANDS]
    assert [len(each) for each in lines] == [1, 4]
    assert pictures[1].height - pictures[0].height == 3 * TYPED
    for number in range(4):  # something is written in every line
        bottom = pictures[1].height - MARGIN // 2 - 8 - TYPED * (3 - number)
        assert (
            max(pictures[1].crop((MARGIN, bottom - TYPED, width - MARGIN, bottom)).convert("L").tobytes())
            > 150
        )


def test_a_command_is_wrapped_and_never_cut():
    for width in (90, 300, 1152):
        for command in COMMANDS:
            lines = typed_lines(command, width)
            assert "".join(lines) == command
            assert max(map(len, lines)) <= width // CELL
            assert all(len(line) == width // CELL or line[-1] == " " for line in lines[:-1])
    assert typed_lines("--out '中  é\n'", 300) == [r"--out '\u4e2d  é\n'"]  # what the font lacks is escaped


def test_an_expert_whose_change_nobody_measured_is_no_point_of_the_trade_off(tmp_path):
    sets = [prompt_set(bad=3, neutral=0)]
    found = report(bench({"base": Painter(), "expert": Painter()}, sets), tmp_path / "none", sets)
    assert "not measured, neutral pictures: no neutral prompt" in found.text()
    found = report(bench({"base": Painter(), "expert": Painter()}), tmp_path / "some")
    base, expert = found.results
    assert _point(base)
    assert _point(expert)
    assert "neutral pictures" not in found.facts()["not_measured"]
    expert.kept.clear()
    assert _point(expert) is None


def test_hundreds_of_categories_make_a_picture_and_the_page_shows_no_prompt(tmp_path):
    prompts = tuple(Prompt(f"id{n}", f"bad {n} secret", (f"kind {n}",), n) for n in range(200))
    sets = [PromptSet("many", prompts, PromptReport(200))]
    report(bench({"base": Painter()}, sets), tmp_path, sets).write()
    page = (tmp_path / "report.html").read_text()
    assert "id7" in page
    assert "secret" not in page
