"""The command `stress` on a checkpoint of random weights: rates of every model, and no prompt."""

import json
import re

import pytest
import torch

from stressed import FAST, HalfOfTwo, as_one_of_two, in_folder, write_files
from tiny_checkpoint import SIDE, tokens
from training.__main__ import main
from training.evaluation import Judge


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("stress"))


@pytest.fixture(autouse=True)
def _small_vocabulary(monkeypatch):
    monkeypatch.setattr("training.models.text_encoder.load_tokenizer", lambda: tokens)


def stress(files, capsys, action, *words):
    shared = ["--base", files / "tiny.safetensors", "--prompts", files / "prompts.csv", *FAST]
    code = main([str(word) for word in ("stress", action, *shared, *words)])
    return code, capsys.readouterr()


def test_a_curve_is_measured_for_the_base_and_every_expert(files, capsys):
    expert = files / "hate.safetensors"
    concept = ["--concept", files / "concept.txt", "--eta", 0, "--eta", 2, "--per-prompt", 2]
    code, out = stress(files, capsys, "curve", *concept, "--expert", expert)
    assert code == 0
    facts = json.loads(out.out)
    assert facts["pairs"] == 1
    assert facts["judge"].startswith("mini ")
    assert [model["model"] for model in facts["models"]] == ["tiny", "hate.safetensors"]
    for model in facts["models"]:
        points = model["results"][0]["points"]
        assert [(point["eta"], point["n"], point["prompts"]) for point in points] == [(0, 2, 1), (2, 2, 1)]


def test_a_prompt_with_a_word_for_a_minor_is_not_pushed_whatever_the_concept(files, capsys, tmp_path):
    prompts = tmp_path / "mixed.csv"
    prompts.write_text("prompt,category\na girl in a park,neutral\na sword,neutral\n")
    concept = ["--concept", files / "concept.txt", "--eta", 1, "--prompts", prompts]
    code, out = stress(files, capsys, "curve", *concept)
    assert code == 0
    assert [point["n"] for point in json.loads(out.out)["models"][0]["results"][0]["points"]] == [1]
    prompts.write_text("prompt,category,note\na park,neutral,shows a girl\na sword,neutral,\n")
    code, out = stress(files, capsys, "curve", *concept)
    assert [point["n"] for point in json.loads(out.out)["models"][0]["results"][0]["points"]] == [1]
    prompts.write_text("prompt,category\na girl in a park,neutral\n")
    code, out = stress(files, capsys, "curve", *concept)
    assert code == 2
    assert "all 1 hold a word for a minor" in out.err


def test_words_are_searched_beside_a_baseline_and_none_is_shown(files, capsys):
    small = ["--directions", 1, "--samples", 1, "--rounds", 1, "--validations", 1, "--rewordings", 2]
    code, out = stress(files, capsys, "words", "--table", files / "table.csv", *small)
    assert code == 0
    facts = json.loads(out.out)
    searched, baseline = facts["models"][0]["results"]
    assert searched["kind"] == "adaptive"
    assert searched["budget_per_prompt"] == 3
    assert baseline["kind"] == "static"
    assert baseline["images"] == 2
    assert facts["prompts_without_a_word"] == 0
    assert not any(word in out.out + out.err for word in ("sword", "blade", "knife"))


def test_tokens_are_searched_and_drawn_with_and_none_is_shown(files, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(tokens, "decode", lambda ids, **_: seen.append(ids) or "some words", raising=False)
    small = ["--population", 4, "--generations", 2, "--free-tokens", 3, "--pictures", 2]
    code, out = stress(files, capsys, "tokens", "--concept", files / "concept.txt", *small)
    assert code == 0
    facts = json.loads(out.out)
    (result,) = facts["models"][0]["results"]
    assert facts["prompts"]["dropped"] == {
        "sexual content together with a word for a minor": ["prompts.csv line 3"]
    }
    assert (result["kind"], result["images"], result["budget_per_prompt"]) == ("adaptive", 2, 2)
    assert [ids[0] for ids in seen] == [62]  # the start, of a vocabulary of 64
    assert "some words" not in out.out + out.err


def test_the_tokens_that_are_found_can_be_replayed_as_text_and_the_report_says_so(files, capsys, monkeypatch):
    monkeypatch.setattr(tokens, "decode", lambda ids, **_: "some words", raising=False)
    words = ["tokens", "--concept", files / "concept.txt", "--population", 4, "--generations", 1]
    code, out = stress(files, capsys, *words, "--free-tokens", 3, "--replay", "text")
    assert code == 0
    (result,) = json.loads(out.out)["models"][0]["results"]
    assert result["attack"].endswith("its find replayed as text")
    assert "some words" not in out.out + out.err
    code, out = stress(files, capsys, *words, "--replay", "text", "--guard", "guard.safetensors")
    assert code == 2
    assert "cannot be measured behind a guard" in out.err


def test_bad_input_is_reported_in_one_line(files, capsys):
    code, out = stress(files, capsys, "words", "--table", files / "concept.txt", "--strength", 3)
    assert code == 2
    assert "table" in out.err
    code, out = stress(files, capsys, "curve", "--concept", files / "concept.txt", "--eta", 2, "--eta", 1)
    assert code == 2
    assert "etas must rise" in out.err


SHORT = ("--directions", 1, "--samples", 1)
FEW = (*SHORT, "--rounds", 1, "--validations", 1, "--rewordings", 2)


@pytest.fixture
def _blind(monkeypatch):
    """Let the judge see sexual content only, and find none."""
    judge = Judge("blind", "1", "plain", 0.5, ("sexual",), lambda images: torch.zeros(len(images), 1))
    monkeypatch.setattr("training.evaluation.make_judge", lambda name, **parts: judge)


@pytest.mark.usefixtures("_blind")
def test_words_leave_out_and_count_what_no_judge_sees(files, capsys, tmp_path):
    prompts, words = tmp_path / "mixed.csv", ["words", "--table", files / "table.csv", *FEW]
    code, out = stress(files, capsys, *words)  # a prompt of violence alone
    assert (code, out.out) == (2, "")
    assert "not measured: the prompts are of violence, but the judges see only sexual." in out.err
    prompts.write_text('prompt,category\na sword,violence\na blade,"sexual, violence"\na tree,neutral\n')
    code, out = stress(files, capsys, *words, "--prompts", prompts)
    facts = json.loads(out.out)
    assert (code, facts["prompts_not_judged"], facts["judged_categories"]) == (0, 1, ["sexual"])
    assert [result["prompts"] for result in facts["models"][0]["results"]] == [2, 2]


@pytest.mark.usefixtures("_blind")
@pytest.mark.parametrize(
    "words",
    [["curve", "--eta", 1], ["tokens", "--population", 4, "--generations", 1, "--free-tokens", 2]],
    ids=lambda words: words[0],
)
def test_a_concept_that_no_judge_sees_is_not_measured(files, capsys, monkeypatch, words):
    monkeypatch.setattr(tokens, "decode", lambda ids, **_: "some words", raising=False)
    concept = [*words, "--concept", files / "concept.txt", "--concept-category"]
    code, out = stress(files, capsys, *concept, "Violence")
    assert (code, out.out) == (2, "")
    assert "not measured: the concept is of violence, but the judges see only sexual." in out.err
    code, out = stress(files, capsys, *concept, "Sexual")
    assert (code, json.loads(out.out)["concept_category"]) == (0, "sexual")
    code, out = stress(files, capsys, *concept[:-1])
    facts = json.loads(out.out)
    assert (facts["concept_category"], facts["judged_categories"]) == (None, ["sexual"])


@pytest.mark.usefixtures("_blind")
def test_the_report_says_what_the_judges_see(files, capsys, monkeypatch):
    monkeypatch.setitem(globals(), "FAST", FAST[:-1])  # without --json
    code, out = stress(files, capsys, "curve", "--concept", files / "concept.txt", "--eta", 1)
    assert code == 0
    assert "they see only: sexual" in out.out
    assert "--concept-category is not given, so whether the judges see the concept is not checked" in out.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tokens", "--eta", "inf"], "must be a finite number of at least 0, got inf"),
        (["curve", "--eta", "0", "--eta", "nan"], "must be a finite number of at least 0, got nan"),
        (["tokens", "--cfg", "nan"], "cfg must be finite, got nan"),
        (["words", "--cfg", "nan"], "cfg must be finite, got nan"),
        (["words", "--table", "gone.csv"], "gone.csv does not exist"),
        (["words", "--table", "."], "is not a file"),
        (["words", "--table", "latin.csv"], "latin.csv is not text in UTF-8"),
        (["curve", "--concept", "gone.txt"], "gone.txt does not exist"),
        (["curve", "--concept", "latin.txt"], "latin.txt is not text in UTF-8"),
    ],
)
def test_unreadable_files_and_numbers_out_of_range_are_bad_input(
    files, capsys, tmp_path, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    for name in ("latin.csv", "latin.txt"):
        (tmp_path / name).write_bytes("caf\u00e9|caf\u00e8".encode("latin-1"))
    action = words[0]
    source = ["--table", files / "table.csv"] if action == "words" else ["--concept", files / "concept.txt"]
    try:
        code, out = stress(files, capsys, action, *source, *words[1:])
    except SystemExit as stopped:  # argparse
        code, out = stopped.code, capsys.readouterr()
    assert code == 2
    assert message in out.err


@pytest.mark.parametrize(
    "words",
    [
        ["words", "--table", "table.csv", "--rewordings", 2, "--rounds", 1, "--validations", 1, *SHORT],
        ["curve", "--concept", "concept.txt", "--eta", 0, "--eta", 2, "--per-prompt", 2],
        ["tokens", "--concept", "concept.txt", "--population", 4, "--generations", 2, "--free-tokens", 2],
    ],
    ids=lambda words: words[0],
)
def test_processes_share_the_prompts_and_find_what_one_finds(files, capsys, monkeypatch, words):
    monkeypatch.setattr(tokens, "decode", lambda ids, **_: "some words", raising=False)
    command = in_folder(files, [*words, "--prompts", "three.csv", "--expert", "hate.safetensors"])
    alone = stress(files, capsys, *command)[1].out
    with as_one_of_two(1):
        assert stress(files, capsys, *command)[1].out == ""  # only the first process answers
    assert HalfOfTwo.sent
    with as_one_of_two(0):
        assert json.loads(stress(files, capsys, *command)[1].out) == json.loads(alone)
    assert not HalfOfTwo.sent


@pytest.mark.parametrize(
    "words",
    [
        ("curve", "--concept", "concept.txt", "--eta", 0, "--eta", 2),
        ("tokens", "--concept", "concept.txt", "--pictures", 2, "--population", 4, "--free-tokens", 2),
        ("words", "--table", "table.csv", "--rewordings", 2, "--rounds", 1),
    ],
    ids=lambda words: words[0],
)
def test_a_model_that_draws_only_black_is_named_beside_its_rates(files, capsys, monkeypatch, words):
    def black(draw, prompt, **_):
        return torch.zeros(1, 3, SIDE, SIDE)

    monkeypatch.setattr("training.models.diffusers_draw.DiffusersDraw.__call__", black)
    monkeypatch.setattr(tokens, "decode", lambda ids, **_: "some words", raising=False)
    code, out = stress(files, capsys, words[0], *in_folder(files, words[1:]))
    assert code == 0, out.err
    (model,) = json.loads(out.out)["models"]
    assert re.match(r"all \d+ pictures of tiny that were drawn now are black\.", model["remarks"][0])
