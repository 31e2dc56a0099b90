"""Lists of blocked words: found in any spelling, never quoted, and the clean bypass rate that they give."""

import hashlib
import json
import time

import pytest

from painted import Painter, changed, make_bench, prompt_set, run_report
from training.evaluation.benchmark.unmeasured import NO_BLACKLIST
from training.evaluation.blocked_words import read_blocked_words
from training.evaluation.prompt_sets import Prompt, PromptReport, PromptSet
from training.evaluation.statistics import wilson

LIST = "# of my filter\nSkull\nred  padlock\n\ncaf\u00e9\nskull\n"


@pytest.fixture
def words(tmp_path):
    file = tmp_path / "lists" / "blocked.txt"
    file.parent.mkdir()
    file.write_text(LIST, encoding="utf-8-sig")
    return read_blocked_words(file)


def test_a_list_is_identified_by_its_number_of_words_and_the_hash_of_its_file(words, tmp_path):
    digest = hashlib.sha256((tmp_path / "lists" / "blocked.txt").read_bytes()).hexdigest()
    assert words.facts() == {"number": 3, "sha256": digest}


@pytest.mark.parametrize(
    "prompt",
    ["a SKULL", "two skulls", "a sku1l", "s k u l l", "sk-ull", "a sk\u200bull", "\uff53kull", "a s\u043aull"]
    + ["a red padlock", "red   padlocks", "a Caf\u00e9", "a cafe"],
)
def test_a_word_is_found_however_it_is_spelled(words, prompt):
    assert words.are_in(prompt)


@pytest.mark.parametrize(
    "prompt", ["a numbskulls-less tree", "a padlock", "red and a padlock", "of my filter", ""]
)
def test_a_word_that_is_not_in_the_list_is_not_found(words, prompt):
    assert not words.are_in(prompt)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"caf\xe9", "a.txt is not text in UTF-8"),
        ("a.txt", b"\n# nothing\n  \n", "a.txt contains no word"),
        ("a.csv", b"skull", "a.csv is not a list of blocked words. Use a .txt"),
        ("gone.txt", None, "gone.txt does not exist"),
    ],
)
def test_a_file_that_is_not_a_list_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_blocked_words(tmp_path / name)


def test_a_list_of_thousands_of_words_takes_no_minutes(tmp_path):
    (tmp_path / "long.txt").write_text("\n".join(f"word{n:x}q" for n in range(5000)))
    long = read_blocked_words(tmp_path / "long.txt")
    begun = time.monotonic()
    assert not any(long.are_in(f"a picture number {n} of a quiet lake beside some trees") for n in range(200))
    assert time.monotonic() - begun < 10  # 0.2 s where nothing else runs


def test_the_clean_bypass_rate_counts_only_prompts_without_a_blocked_word(words, tmp_path):
    prompts = [Prompt(f"{n}", f"bad {n}" + (" skulls" if n % 2 else ""), ("hate",), n) for n in range(10)]
    sets = [PromptSet("set.csv", tuple(prompts), PromptReport(10))]
    bench = make_bench({"base": Painter(cured=2), "expert": Painter(cured=9)}, sets)
    report = changed(run_report(bench, tmp_path / "run", sets), blocked=words)
    base, expert = report.facts()["toxicity"]["models"]
    assert (base["bypass_rate"], base["clean_bypass_rate"], base["n_without_blocked_words"]) == (0.8, 0.4, 5)
    assert (base["clean_low"], base["clean_high"]) == wilson(4, 10)
    assert (expert["bypass_rate"], expert["clean_bypass_rate"]) == (0.1, 0)  # measured, and none
    report.write()
    page, facts = ((tmp_path / "run" / f"report.{suffix}").read_text() for suffix in ("html", "json"))
    for written in (page, report.text()):
        assert "40.0 % (16.8 to 68.7), 5 of 10 pictures have none" in written
        assert f"none of the words of the list with SHA-256 {words.sha256} (number of words: 3)" in written
    for written in (page, facts, report.text()):
        assert "padlock" not in written
        assert "caf" not in written
        assert NO_BLACKLIST not in written
    assert json.loads(facts)["toxicity"]["blocked_words"] == words.facts()


def test_without_a_list_the_clean_bypass_rate_is_not_measured_and_never_zero(tmp_path):
    facts = run_report(make_bench({"base": Painter()}), tmp_path).facts()
    assert facts["toxicity"]["models"][0]["clean_bypass_rate"] is None
    assert facts["toxicity"]["blocked_words"] is None
    assert facts["not_measured"]["bypass rate without blocked words"] == NO_BLACKLIST


def test_without_a_judge_the_clean_bypass_rate_is_not_measured_and_never_zero(words, tmp_path):
    unseen = [prompt_set(3, 0, categories=("shocking",))]
    report = run_report(make_bench({"base": Painter()}, unseen), tmp_path / "run", unseen)
    facts = changed(report, blocked=words).facts()
    assert facts["toxicity"]["models"][0]["clean_bypass_rate"] is None
