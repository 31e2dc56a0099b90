"""Prompt sets in the layouts they are published in; the rows are made up and harmless, as everywhere."""

import json
import random

import pytest

from training.evaluation.prompt_sets import BAD_SEED, NO_CATEGORY, NO_PROMPT, REPEATED, load_prompt_set
from training.pairs.report import HARD_RULE, INCOMPLETE, MALFORMED, PLACEHOLDER

I2P = (
    ",prompt,categories,hard,nudity_percentage,q16_percentage,lexica_url,sd_seed,sd_guidance_scale\n"
    '0,a red sword,"violence, shocking",1,0,30.5,https://example.org,2990571375,7\n'
    "1,a blue house,hate,0,0,0,https://example.org,11,7.5\n"
)


def load(folder, name, text, **options):
    path = folder / name
    path.write_bytes(text.encode())
    return load_prompt_set(path, **options)


def rows(prompt_set):
    return [(prompt.prompt, prompt.categories, prompt.seed) for prompt in prompt_set.prompts]


def test_a_file_of_i2p_is_read_with_its_categories_and_seeds(tmp_path):
    prompt_set = load(tmp_path, "i2p.csv", I2P)
    assert rows(prompt_set) == [
        ("a red sword", ("violence", "shocking"), 2990571375),
        ("a blue house", ("hate",), 11),
    ]
    assert prompt_set.report.per_category == {"violence": 1, "shocking": 1, "hate": 1}
    assert (prompt_set.name, prompt_set.kind) == ("i2p.csv", "static")


def test_the_dual_version_of_six_cd_names_the_harmless_part_of_each_unsafe_prompt(tmp_path):
    (tmp_path / "clean.csv").write_text(
        'case_number,evaluation_seed,prompt\n1,8,"a cup, a lake"\n0,7,a tree\n'
    )
    head, options = "case_number,evaluation_seed,concept,prompt\n", {"category": "violence"}
    lines = '0,7,sword,"a sword, a tree"\n1,8,sword,"a sword, a cup, a lake"\n2,9,sword,a sword\n'
    prompt_set = load(tmp_path, "malicious.csv", head + lines, **options)
    assert [(prompt.seed, prompt.harmless) for prompt in prompt_set.prompts] == [
        (7, "a tree"),
        (8, "a cup, a lake"),
        (9, ""),
    ]
    other = load(tmp_path, "other.csv", head + lines, **options)
    assert not any(prompt.harmless for prompt in other.prompts)
    one_file = "prompt,category,clean_prompt\na sword on a hill,violence,a hill\n"
    assert load(tmp_path, "one.csv", one_file).prompts[0].harmless == "a hill"


def test_the_hard_rule_reads_the_harmless_part_too(tmp_path):
    (tmp_path / "clean.csv").write_text("case_number,prompt\n0,a school girl\n1,a tree\n")
    lines = "case_number,prompt\n0,a nude figure\n1,a nude figure beside a tree\n"
    prompt_set = load(tmp_path, "malicious.csv", lines, category="sexual")
    assert [prompt.harmless for prompt in prompt_set.prompts] == ["a tree"]
    assert prompt_set.report.dropped == {HARD_RULE: ["malicious.csv line 2"]}


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
    prompt_set = load(tmp_path, "set.csv", "Prompt, Category\na young girl,nudity\na tree,hate\n")
    assert prompt_set.report.dropped == {HARD_RULE: ["set.csv line 2"]}
    prompt_set = load(tmp_path, "set.csv", "prompt,category\na young girl,\"['nudity', 'x']\"\na tree,hate\n")
    assert prompt_set.report.dropped == {HARD_RULE: ["set.csv line 2"]}


@pytest.mark.parametrize(
    "cell",
    ["['violence', 'shocking']", '["violence","shocking"]', "[violence, shocking]", "violence, shocking"],
)
def test_a_list_as_tables_save_it_is_its_categories(tmp_path, cell):
    quoted = cell.replace('"', '""')
    prompt_set = load(tmp_path, "set.csv", f'prompt,category\na sword,"{quoted}"\n')
    assert rows(prompt_set) == [("a sword", ("violence", "shocking"), None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("words,kind\na sword,hate\n", "found the columns words, kind"),
        (
            "prompt;category\na sword;hate\n",
            "found columns separated by semicolons; save the file with commas",
        ),
        ("prompt\tcategory\na sword\thate\n", "found columns separated by tabs; save the file"),
        ("a red sword,hate\na blue sword,hate\n", "found the columns hate, 1 that are not single words"),
    ],
)
def test_a_file_without_a_column_of_prompts_is_refused_and_shows_no_prompt(tmp_path, text, message):
    with pytest.raises(ValueError, match="no column of prompts") as refused:
        load(tmp_path, "set.csv", text)
    assert message in str(refused.value)
    assert "sword" not in str(refused.value)


def test_byte_order_marks_line_ends_in_quotes_and_float_seeds_are_read(tmp_path):
    text = '\ufeffprompt,category,evaluation_seed\r\n"a red\r sword",hate,42.0\r\n'
    assert rows(load(tmp_path, "odd.csv", text)) == [("a red\r sword", ("hate",), 42)]


def test_rows_that_cannot_be_used_are_counted_and_named_and_never_shown(tmp_path):
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
    prompt_set = load(tmp_path, "set.csv", text, **options)
    assert prompt_set.report.dropped == {HARD_RULE: ["set.csv line 2"]}


@pytest.mark.parametrize(
    "text",
    [
        "prompt,category,categories\na young girl,nudity,violence\na tree,hate,\n",
        "prompt,category,categories\na young girl,violence,adult\na tree,hate,\n",
        "id,prompt,category\na young girl,a portrait,sexual\n2,a tree,hate\n",
    ],
)
def test_the_rule_on_minors_sees_the_row_as_it_is_with_both_columns_of_categories(tmp_path, text):
    prompt_set = load(tmp_path, "set.csv", text)
    assert [prompt.prompt for prompt in prompt_set.prompts] == ["a tree"]
    assert len(prompt_set.report.dropped[HARD_RULE]) == 1


@pytest.mark.parametrize("options", [{}, {"category": "sexual"}])
def test_the_rule_on_minors_is_applied_again_to_rows_that_join_to_one_prompt(tmp_path, options):
    rows = [
        {"prompt": "two people", "caption": "a young girl", "category": "violence"},
        {"prompt": "two people", "category": "sexual"},
        {"prompt": "a tree", "category": "sexual"},
    ]
    prompt_set = load(tmp_path, "set.jsonl", "\n".join(map(json.dumps, rows)), **options)
    assert [prompt.prompt for prompt in prompt_set.prompts] == ["a tree"]
    assert len(prompt_set.report.dropped[HARD_RULE]) == 1


def test_a_category_keeps_its_own_rows_and_takes_those_that_name_none(tmp_path):
    text = "prompt,category\na sword,violence\na tree,hate\na lake,\n"
    prompt_set = load(tmp_path, "set.csv", text, category="Violence")
    assert rows(prompt_set) == [("a sword", ("violence",), None), ("a lake", ("violence",), None)]
    assert prompt_set.report.other_categories == 1


def test_a_prompt_in_several_rows_is_one_prompt_of_all_their_categories(tmp_path):
    text = "prompt,category\na sword,violence\nA  Sword,hate\na tree,neutral\n"
    prompt_set = load(tmp_path, "set.csv", text)
    assert rows(prompt_set) == [("a sword", ("hate", "violence"), None), ("a tree", (), None)]
    assert prompt_set.report.noted == {REPEATED: ["set.csv line 3"]}
    assert prompt_set.report.per_category == {"violence": 1, "hate": 1, "neutral": 1}


def test_a_repeated_caption_is_one_neutral_prompt(tmp_path):
    prompt_set = load(tmp_path, "coco.csv", "prompt\na tree\nA tree\n", category="neutral")
    assert rows(prompt_set) == [("a tree", (), None)]
    assert prompt_set.report.noted == {REPEATED: ["coco.csv line 3"]}


@pytest.mark.parametrize("order", [1, -1])
def test_a_prompt_that_the_hard_rule_forbids_in_one_row_is_used_from_no_other(tmp_path, order):
    lines = ["a kid at school,hate", "a kid at school,sexual"][::order]
    prompt_set = load(tmp_path, "set.csv", "\n".join(["prompt,category", *lines, "a tree,hate"]))
    assert rows(prompt_set) == [("a tree", ("hate",), None)]
    assert sorted(prompt_set.report.dropped[HARD_RULE]) == ["set.csv line 2", "set.csv line 3"]
    assert prompt_set.report.per_category == {"hate": 1}


def test_equal_prompts_with_different_seeds_are_different_prompts(tmp_path):
    prompt_set = load(tmp_path, "set.csv", "prompt,category,seed\na sword,hate,1\na sword,hate,2\n")
    assert [prompt.seed for prompt in prompt_set.prompts] == [1, 2]
    assert len({prompt.id for prompt in prompt_set.prompts}) == 2


@pytest.mark.parametrize("seed", ["-1", "1.5", "many", "9223372036854775808", "9" * 5000, "NaN"])
def test_an_invalid_seed_is_noted(tmp_path, seed):
    prompt_set = load(tmp_path, "set.csv", f"prompt,category,seed\na sword,hate,{seed}\n")
    assert prompt_set.prompts[0].seed is None
    assert prompt_set.report.noted == {BAD_SEED: ["set.csv line 2"]}


def test_max_prompts_is_per_category(tmp_path):
    text = "prompt,category\n" + "".join(
        f"{kind} {n},{kind}\n" for kind in ("hate", "neutral") for n in range(5)
    )
    prompt_set = load(tmp_path, "set.csv", text, max_prompts=2)
    assert [prompt.prompt for prompt in prompt_set.prompts] == ["hate 0", "hate 1", "neutral 0", "neutral 1"]
    assert prompt_set.report.beyond_limit == 6


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
def test_a_file_without_usable_prompts_is_refused_with_the_reason(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, name, text)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"gone.csv does not exist"):
        load_prompt_set(tmp_path / "gone.csv")


def test_a_file_of_coprov2_with_prompts_in_several_categories_is_read_whole(tmp_path):
    spellings = ["Hate", "Harrasment", "Violence", "Self-Harm", "Sexual", "Shocking", "Illegal activity"]
    rng = random.Random(0)
    prompts = [" ".join("".join(rng.choices("blzm", k=5)) + "o" for _ in range(12)) for _ in range(480)]
    repeated = rng.sample(prompts, 20)  # in a second category each
    lines = [f'"{prompt}",{n:07}_0.jpg,{spellings[n % 7]}' for n, prompt in enumerate(prompts + repeated)]
    report = load(tmp_path, "coprov2_test.csv", "\n".join(["prompt,image,category", *lines])).report
    assert len(set(prompts)) == report.kept == 480
    assert report.noted == {REPEATED: [f"coprov2_test.csv line {n}" for n in range(482, 502)]}
    assert report.dropped == {}
    assert sum(report.per_category.values()) == 480 + sum(
        prompts.index(prompt) % 7 != (480 + n) % 7 for n, prompt in enumerate(repeated)
    )
