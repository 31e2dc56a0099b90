"""Every reader of prompts obeys the hard rule and drops forbidden rows, disguised or not."""

import csv
import json

import pytest

from builders import coprov2_names, pair_row, write_csv, write_picture, write_rows
from training.pairs import load_pairs
from training.pairs.prompts import parse_prompts

REASON = "sexual content together with a word for a minor"
FORBIDDEN = ["nude, a kid", "n u d e, a k1d", "nud\u0435 \u0441hild", "n.u.d.e t33ns", "NUUUDE Ch\u00adild"]


def pictures(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for tone, name in enumerate(names):
        write_picture(folder / name, (tone, 0, 9))


def jsonl_folder(root, prompt):
    pictures(root, ("u0", "s0", "u1", "s1"))
    rows = [
        pair_row(
            str(n), unsafe_prompt=text, safe_prompt=f"a tree {n}", unsafe_image=f"u{n}", safe_image=f"s{n}"
        )
        for n, text in enumerate(("a wall", prompt))
    ]
    write_rows(root / "pairs.jsonl", rows)
    return root


def neutral_rows(root, prompt):
    jsonl_folder(root, "a road")
    pictures(root, ["n"])
    write_rows(root / "neutral.jsonl", [{"id": "n", "prompt": prompt, "image": "n"}])
    return root


def coprov2_csv(root, prompt):
    names = [*coprov2_names(0), *coprov2_names(1)]
    pictures(root, names)
    texts = ("a wall", "a tree", prompt, "a bush")
    rows = [(text, name, "Hate") for text, name in zip(texts, names, strict=True)]
    return write_csv(root / "train.csv", [("prompt", "image", "category"), *rows])


def image_folder(root, prompt):
    names = [*coprov2_names(0), *coprov2_names(1)]
    pictures(root, names)
    texts = ("a wall", "a tree", prompt, "a bush")
    rows = [
        (name, names[n // 2 * 2 + 1], names[n // 2 * 2], 1, text)
        for n, (name, text) in enumerate(zip(names, texts, strict=True))
    ]
    write_csv(root / "metadata.csv", [("file_name", "jpg_0", "jpg_1", "label_0", "caption"), *rows])
    return root


@pytest.mark.parametrize("write", [jsonl_folder, neutral_rows, coprov2_csv, image_folder])
@pytest.mark.parametrize("prompt", FORBIDDEN)
def test_forbidden_pairs_and_neutral_rows_of_any_layout_are_dropped(tmp_path, write, prompt):
    report = load_pairs(write(tmp_path / "in", prompt), category="hate").report
    assert list(report.dropped) == [REASON]
    assert report.num_dropped == 1
    assert prompt not in report.text() + str(report.facts())


@pytest.mark.parametrize("prompt", FORBIDDEN)
def test_forbidden_lines_of_a_text_are_dropped(prompt):
    parsed = parse_prompts(f"a wall\n{prompt}\n")
    assert (parsed.prompts, parsed.num_dropped) == (("a wall",), 1)
    with pytest.raises(ValueError, match="no prompt to use") as refused:
        parse_prompts(prompt)
    assert prompt not in str(refused.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"scores": {"note": ["a kid"]}},
        {"age": 9},
        {"subject": {"Age": 17.0}},
        {"unsafe_image": "kid/u1"},
        {"id": "child_1"},
    ],
)
def test_all_other_fields_count_too(tmp_path, fields):
    root = jsonl_folder(tmp_path, "a road")
    lines = (root / "pairs.jsonl").read_text().splitlines()
    row = json.loads(lines[1]) | {"category": ["nudity"]} | fields
    write_rows(root / "pairs.jsonl", [lines[0], row])
    assert list(load_pairs(root).report.dropped) == [REASON]


COLUMNS = [
    *[("age", "12"), ("subject_age", "9"), ("is_child", "1")],
    *[("Age", "12"), ("ageYears", "12"), ("subjectAge", "9"), ("isChild", "true")],
]


@pytest.mark.parametrize(("column", "cell"), COLUMNS)
@pytest.mark.parametrize("write", [coprov2_csv, image_folder])
def test_all_other_columns_count_too(tmp_path, write, column, cell):
    source = write(tmp_path, "a nude")
    file = source if source.is_file() else source / "metadata.csv"
    header, *rows = csv.reader(file.read_text().splitlines())
    cells = ("", "", cell, cell)  # in the second pair
    extended = ([*row, value] for row, value in zip(rows, cells, strict=True))
    write_csv(file, [[*header, column], *extended])
    assert list(load_pairs(source, category="hate").report.dropped) == [REASON]


def test_json_metadata_counts_ages_and_disguises_at_any_depth(tmp_path):
    image_folder(tmp_path, "a nude")
    header, *rows = csv.reader((tmp_path / "metadata.csv").read_text().splitlines())
    (tmp_path / "metadata.csv").unlink()
    *first, last = [dict(zip(header, row, strict=True)) | {"label_0": 1} for row in rows]
    for fields in ({"age": 12}, {"x": {"subject_age": [9]}}, {"note": {"x": "k\u0456d"}}):
        write_rows(tmp_path / "metadata.jsonl", [*first, last | fields])
        assert list(load_pairs(tmp_path, category="hate").report.dropped) == [REASON]


def test_a_repeated_name_does_not_get_around_the_rule(tmp_path):
    root = jsonl_folder(tmp_path / "json", "a kid")
    lines = (root / "pairs.jsonl").read_text().splitlines()
    lines[1] = lines[1].replace('"category": "hate"', '"category": "sexual", "category": "hate"')
    write_rows(root / "pairs.jsonl", lines)
    assert list(load_pairs(root).report.dropped) == ["not a JSON object on one line"]
    file = coprov2_csv(tmp_path / "csv", "a kid")
    header, *rows = csv.reader(file.read_text().splitlines())
    write_csv(file, [[*header, "category"], *([*row[:-1], "sexual", "hate"] for row in rows)])
    with pytest.raises(ValueError, match="has the column 'category' twice"):
        load_pairs(file)
