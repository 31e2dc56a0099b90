"""Prompt sets in the layouts they are published in; the rows are made up and harmless, as everywhere."""

import json
from pathlib import Path

import pytest

from training.evaluation.prompt_sets import BAD_SEED, NO_CATEGORY, NO_PROMPT, REPEATED, load_prompt_set
from training.pairs.report import HARD_RULE, INCOMPLETE, MALFORMED, PLACEHOLDER

TWIN = Path("/work/shared/data/coprov2_twin_test.csv")
I2P = (
    ",prompt,categories,hard,nudity_percentage,q16_percentage,lexica_url,sd_seed,sd_guidance_scale\n"
    '0,a red sword,"violence, shocking",1,0,30.5,https://example.org,2990571375,7\n'
    "1,a blue house,hate,0,0,0,https://example.org,11,7.5\n"
)


def load(folder, name, text, **options):
    path = folder / name
    path.write_bytes(text.encode())
    return load_prompt_set(path, **options)


def rows(found):
    return [(each.prompt, each.categories, each.seed) for each in found.prompts]


def test_i2p(tmp_path):
    found = load(tmp_path, "i2p.csv", I2P)
    assert rows(found) == [
        ("a red sword", ("violence", "shocking"), 2990571375),
        ("a blue house", ("hate",), 11),
    ]
    assert found.report.per_category == {"violence": 1, "shocking": 1, "hate": 1}
    assert (found.name, found.kind) == ("i2p.csv", "static")


def test_the_dual_version_of_six_cd_tells_what_is_harmless_in_each_unsafe_prompt(tmp_path):
    (tmp_path / "clean.csv").write_text(
        'case_number,evaluation_seed,prompt\n1,8,"a cup, a lake"\n0,7,a tree\n'
    )
    head, options = "case_number,evaluation_seed,concept,prompt\n", {"category": "violence"}
    lines = '0,7,sword,"a sword, a tree"\n1,8,sword,"a sword, a cup, a lake"\n2,9,sword,a sword\n'
    found = load(tmp_path, "malicious.csv", head + lines, **options)
    assert [(each.seed, each.harmless) for each in found.prompts] == [
        (7, "a tree"),
        (8, "a cup, a lake"),
        (9, ""),
    ]
    assert all(not each.harmless for each in load(tmp_path, "other.csv", head + lines, **options).prompts)
    own = "prompt,category,clean_prompt\na sword on a hill,violence,a hill\n"
    assert load(tmp_path, "own.csv", own).prompts[0].harmless == "a hill"


def test_the_hard_rule_reads_the_harmless_part_too(tmp_path):
    (tmp_path / "clean.csv").write_text("case_number,prompt\n0,a school girl\n1,a tree\n")
    lines = "case_number,prompt\n0,a nude figure\n1,a nude figure beside a tree\n"
    found = load(tmp_path, "malicious.csv", lines, category="sexual")
    assert [each.harmless for each in found.prompts] == ["a tree"]
    assert found.report.dropped == {HARD_RULE: ["malicious.csv line 2"]}


DIALECTS = {  # header and a row, as published -> options, what is read
    "coprov2.csv": ("prompt,image,category\na sword,0000000_0.jpg,Harrasment\n", {}, ("harassment",), None),
    "p4d.csv": (
        ",case_number,prompt,evaluation_seed,categories,evaluation_guidance\n0,9,a sword,90,sexual,7.5\n",
        {},
        ("sexual",),
        90,
    ),
    "coco_10k.csv": (
        "case_number,source,prompt,evaluation_seed\n000000203564,coco-30k,a sword,41337\n",
        {"category": "neutral"},
        (),
        41337,
    ),
    "Harm.csv": (
        "case_number,prompt,evaluation_seed\n0,a sword,5\n",
        {"category": "Violence"},
        ("violence",),
        5,
    ),
    "nudity-ring-a-bell.csv": (",sensitive prompt\n0,a sword\n", {"category": "sexual"}, ("sexual",), None),
    "Violence_30.csv": ("prompt,prompt1\na sword,a flower\n", {"category": "violence"}, ("violence",), None),
    "attack.csv": ("target_prompt,adv_prompt\nwords,a sword\n", {"category": "hate"}, ("hate",), None),
    "ud.txt": ("shocking: a sword\n", {}, ("shocking",), None),
    "pairs.jsonl": (
        json.dumps({"id": "1", "category": ["hate"], "unsafe_prompt": "a sword", "safe_prompt": "a rose"}),
        {},
        ("hate",),
        None,
    ),
    "captions_val2014.json": (
        json.dumps({"images": [], "annotations": [{"image_id": 1, "id": 2, "caption": "a sword"}]}),
        {},
        (),
        None,
    ),
    "list.json": (
        json.dumps([{"prompt": "a sword", "category": "Self Harm", "seed": 3}]),
        {},
        ("self-harm",),
        3,
    ),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_is_read_as_it_comes(tmp_path, name):
    text, options, categories, seed = DIALECTS[name]
    assert rows(load(tmp_path, name, text, **options)) == [("a sword", categories, seed)]


@pytest.mark.parametrize(
    "header",
    [
        "Prompt,Category,Evaluation_Seed",
        "prompt, category, evaluation_seed",
        " PROMPT ,CATEGORY , Evaluation_seed",
    ],
)
def test_case_and_blanks_of_a_header_make_no_difference(tmp_path, header):
    assert rows(load(tmp_path, "set.csv", f"{header}\na sword,hate,5\n")) == [("a sword", ("hate",), 5)]


def test_the_rule_on_minors_sees_a_category_below_any_header(tmp_path):
    found = load(tmp_path, "set.csv", "Prompt, Category\na young girl,nudity\na tree,hate\n")
    assert found.report.dropped == {HARD_RULE: ["set.csv line 2"]}
    found = load(tmp_path, "set.csv", "prompt,category\na young girl,\"['nudity', 'x']\"\na tree,hate\n")
    assert found.report.dropped == {HARD_RULE: ["set.csv line 2"]}


@pytest.mark.parametrize(
    "cell",
    ["['violence', 'shocking']", '["violence","shocking"]', "[violence, shocking]", "violence, shocking"],
)
def test_a_list_as_tables_save_it_is_its_categories(tmp_path, cell):
    quoted = cell.replace('"', '""')
    found = load(tmp_path, "set.csv", f'prompt,category\na sword,"{quoted}"\n')
    assert rows(found) == [("a sword", ("violence", "shocking"), None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("words,kind\na sword,hate\n", "found the columns words, kind"),
        ("prompt;category\na sword;hate\n", "found columns parted by semicolons: save it with commas"),
        ("prompt\tcategory\na sword\thate\n", "found columns parted by tabs: save it with commas"),
        ("a red sword,hate\na blue sword,hate\n", "found the columns hate, 1 that are no single word"),
    ],
)
def test_a_file_without_a_column_of_prompts_is_told_what_it_has_and_shows_no_prompt(tmp_path, text, message):
    with pytest.raises(ValueError, match="no column of prompts") as refused:
        load(tmp_path, "set.csv", text)
    assert message in str(refused.value)
    assert "sword" not in str(refused.value)


def test_a_byte_order_mark_line_ends_in_quotes_and_pandas_seeds_do_no_harm(tmp_path):
    text = '\ufeffprompt,category,evaluation_seed\r\n"a red\r sword",hate,42.0\r\n'
    assert rows(load(tmp_path, "odd.csv", text)) == [("a red\r sword", ("hate",), 42)]


def test_what_cannot_be_used_is_counted_and_named_and_never_shown(tmp_path):
    lines = [
        {"prompt": "an erotic kid", "category": "hate"},
        {"prompt": "a kid at school", "category": "sexual"},
        {"prompt": "----prompt----", "category": "hate"},
        {"prompt": "", "category": "hate"},
        {"prompt": "a tree"},
        {"words": "a tree", "category": "hate"},
        {"prompt": "a tree", "category": "hate"},
    ]
    text = "\n".join([*map(json.dumps, lines), "no json"])
    report = load(tmp_path, "set.jsonl", text).report
    assert report.kept == 1
    assert report.dropped == {
        HARD_RULE: ["set.jsonl line 1", "set.jsonl line 2"],
        PLACEHOLDER: ["set.jsonl line 3"],
        INCOMPLETE: ["set.jsonl line 4"],
        NO_CATEGORY: ["set.jsonl line 5"],
        f"{NO_PROMPT}; found the columns words, category": ["set.jsonl line 6"],
        MALFORMED: ["set.jsonl line 8"],
    }
    assert "tree" not in report.text()
    assert "1 prompts, 7 rows dropped" in report.text()


@pytest.mark.parametrize("options", [{}, {"category": "sexual"}])
def test_the_rule_on_minors_also_sees_other_columns_and_a_chosen_category(tmp_path, options):
    text = "prompt,category,note\na portrait,sexual,of a child\na tree,sexual,none\n"
    if options:
        text = "prompt,note\na portrait,of a child\na tree,none\n"
    found = load(tmp_path, "set.csv", text, **options)
    assert found.report.dropped == {HARD_RULE: ["set.csv line 2"]}


@pytest.mark.parametrize(
    "text",
    [
        "prompt,category,categories\na young girl,nudity,violence\na tree,hate,\n",
        "prompt,category,categories\na young girl,violence,adult\na tree,hate,\n",
        "id,prompt,category\na young girl,a portrait,sexual\n2,a tree,hate\n",
    ],
)
def test_the_rule_on_minors_sees_the_row_as_it_is_with_both_columns_of_categories(tmp_path, text):
    found = load(tmp_path, "set.csv", text)
    assert [each.prompt for each in found.prompts] == ["a tree"]
    assert len(found.report.dropped[HARD_RULE]) == 1


@pytest.mark.parametrize("options", [{}, {"category": "sexual"}])
def test_the_rule_on_minors_is_asked_again_of_rows_that_join_to_one_prompt(tmp_path, options):
    rows = [
        {"prompt": "two people", "caption": "a young girl", "category": "violence"},
        {"prompt": "two people", "category": "sexual"},
        {"prompt": "a tree", "category": "sexual"},
    ]
    found = load(tmp_path, "set.jsonl", "\n".join(map(json.dumps, rows)), **options)
    assert [each.prompt for each in found.prompts] == ["a tree"]
    assert len(found.report.dropped[HARD_RULE]) == 1


def test_a_category_keeps_its_own_rows_and_takes_those_that_name_none(tmp_path):
    text = "prompt,category\na sword,violence\na tree,hate\na lake,\n"
    found = load(tmp_path, "set.csv", text, category="Violence")
    assert rows(found) == [("a sword", ("violence",), None), ("a lake", ("violence",), None)]
    assert found.report.other_categories == 1


def test_a_prompt_in_several_rows_is_one_prompt_of_all_their_categories(tmp_path):
    text = "prompt,category\na sword,violence\nA  Sword,hate\na tree,neutral\n"
    found = load(tmp_path, "set.csv", text)
    assert rows(found) == [("a sword", ("hate", "violence"), None), ("a tree", (), None)]
    assert found.report.noted == {REPEATED: ["set.csv line 3"]}
    assert found.report.per_category == {"violence": 1, "hate": 1, "neutral": 1}


def test_a_caption_that_stands_there_twice_is_one_neutral_prompt(tmp_path):
    found = load(tmp_path, "coco.csv", "prompt\na tree\nA tree\n", category="neutral")
    assert rows(found) == [("a tree", (), None)]
    assert found.report.noted == {REPEATED: ["coco.csv line 3"]}


@pytest.mark.parametrize("order", [1, -1])
def test_what_the_hard_rule_forbids_in_one_row_is_used_from_no_other(tmp_path, order):
    lines = ["a kid at school,hate", "a kid at school,sexual"][::order]
    found = load(tmp_path, "set.csv", "\n".join(["prompt,category", *lines, "a tree,hate"]))
    assert rows(found) == [("a tree", ("hate",), None)]
    assert sorted(found.report.dropped[HARD_RULE]) == ["set.csv line 2", "set.csv line 3"]
    assert found.report.per_category == {"hate": 1}


def test_equal_prompts_with_other_seeds_are_other_prompts(tmp_path):
    found = load(tmp_path, "set.csv", "prompt,category,seed\na sword,hate,1\na sword,hate,2\n")
    assert [each.seed for each in found.prompts] == [1, 2]
    assert len({each.id for each in found.prompts}) == 2


@pytest.mark.parametrize("seed", ["-1", "1.5", "many", "9223372036854775808", "9" * 5000, "NaN"])
def test_a_seed_that_is_none_is_noted(tmp_path, seed):
    found = load(tmp_path, "set.csv", f"prompt,category,seed\na sword,hate,{seed}\n")
    assert found.prompts[0].seed is None
    assert found.report.noted == {BAD_SEED: ["set.csv line 2"]}


def test_max_prompts_is_per_category(tmp_path):
    text = "prompt,category\n" + "".join(
        f"{kind} {n},{kind}\n" for kind in ("hate", "neutral") for n in range(5)
    )
    found = load(tmp_path, "set.csv", text, max_prompts=2)
    assert [each.prompt for each in found.prompts] == ["hate 0", "hate 1", "neutral 0", "neutral 1"]
    assert found.report.beyond_limit == 6


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("set.parquet", "", "not a prompt set"),
        ("set.json", "{", "cannot be read as JSON"),
        ("set.json", "3", "neither a list"),
        ("set.json", '[{"prompt": "a", "prompt": "b", "category": "hate"}]', "cannot be read as JSON"),
        ("set.csv", "words\na\n", "no column of prompts"),
        ("set.csv", "prompt,category\n", "no prompt of set.csv can be used"),
    ],
)
def test_a_file_of_no_use_is_refused_with_the_reason(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, name, text)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"gone.csv does not exist"):
        load_prompt_set(tmp_path / "gone.csv")


@pytest.mark.skipif(not TWIN.is_file(), reason="the twin of CoProV2 is not on this machine")
def test_the_twin_of_coprov2_is_read_whole():
    report = load_prompt_set(TWIN).report
    # 8000 rows, 7942 distinct prompts; a prompt of several rows carries all their categories
    assert report.kept + sum(map(len, report.noted.values())) + sum(map(len, report.dropped.values())) == 8000
    assert report.kept == 7942
    assert report.dropped == {}
