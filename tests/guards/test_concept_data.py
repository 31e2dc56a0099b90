"""Concepts and their prompts, from text, pairs and CoPro; bad rows are counted and named, never quoted."""

import json
from pathlib import Path

import pytest

from training.guards.concept_data import concepts_of_pairs, differing_words, parse_concepts, read_concepts
from training.rules.categories import CATEGORIES

TWIN = Path(__file__).resolve().parents[3] / "shared" / "data" / "coprov2_twin_train.csv"
# structural twins of the published files: their names and shapes, harmless words
COPRO_ENTRY = {"Unsafe_Prompt": "a sword on a table", "safe_prompt": "a spoon on a table", "concept": "Sword"}


def written(path, content, encoding="utf-8"):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding=encoding)
    return path


@pytest.mark.parametrize(
    ("unsafe", "safe", "words"),
    [
        ("a sword on a white ground", "a spoon on a white ground", "sword"),
        ("a rusty old sword on a table", "a spoon on a table", "rusty old sword"),
        ("sword, white ground", "Spoon, white ground", "sword"),
        ("a man who fights with the crowd", "a man who dances", "fights crowd"),
        ("a sword and a burning long dark house", "a spoon and a tent", "burning long dark house"),
        ("one two three four five six seven", "none", "one two three four"),
        ("a sword in it", "a sword at it", ""),
        ("blue sword", "sword blue", ""),
    ],
)
def test_the_concept_of_a_pair_is_the_longest_run_of_words_that_only_the_unsafe_prompt_has(
    unsafe, safe, words
):
    assert differing_words(unsafe, safe) == words


def test_a_pair_that_differs_in_no_word_takes_its_category():
    fields = {"unsafe_prompt": "a cat on it", "safe_prompt": "a cat at it", "category": "Harrasment"}
    (row,) = concepts_of_pairs([("one", fields)]).rows
    assert (row.concept, row.category) == ("harassment", "harassment")


def test_lines_of_text_name_concept_prompts_and_perhaps_a_category():
    data = parse_concepts("violence: Sword | a sword | a spoon\n\nbolt | a bolt | a bell\nno bars here\n")
    assert [row[0] for row in data.rows] == ["sword", "bolt"]
    assert data.concepts == {"sword": "violence", "bolt": ""}
    assert list(data.dropped.values()) == [["line 4"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_file_of_copro_is_read_by_its_part_whatever_its_case(tmp_path, encoding):
    content = {
        "id_concepts": ["sword"],
        "ID_train_data": [COPRO_ENTRY, "noise"],
        "OOD_test_data": [COPRO_ENTRY],
    }
    path = written(tmp_path / "CoPro_v1.0.json", content, encoding)
    data = read_concepts(path)
    assert [(row.concept, row.unsafe) for row in data.rows] == [("sword", "a sword on a table")]
    assert list(data.dropped.values()) == [["ID_train_data 2"]]
    assert len(read_concepts(path, "OOD_test_data").rows) == 1
    with pytest.raises(ValueError, match="has no list ID_test_data"):
        read_concepts(path, "ID_test_data")


def test_a_file_of_pairs_is_read_as_training_reads_it(tmp_path):
    row = {
        "id": "1",
        "category": ["violence"],
        "unsafe_prompt": "a sword here",
        "safe_prompt": "a spoon here",
    }
    path = written(tmp_path / "pairs.jsonl", json.dumps(row) + "\nnot json\n")
    data = read_concepts(path)
    assert data.concepts == {"sword": "violence"}
    assert list(data.dropped.values()) == [["pairs.jsonl line 2"]]


def test_coprov2s_csv_needs_no_column_of_concepts(tmp_path):
    lines = [
        "prompt,image,category",
        "a sword in a hall,u_idx_0000000_0.jpg,Violence",
        "a spoon in a hall,s_idx_0000000_0.jpg,Violence",
    ]
    data = read_concepts(written(tmp_path / "CoProV2_train.csv", "\n".join(lines)))
    assert data.concepts == {"sword": "violence"}


@pytest.mark.skipif(not TWIN.is_file(), reason="the twin of CoProV2 is not in ../shared")
def test_the_structural_twin_of_coprov2_is_read_whole():
    data = read_concepts(TWIN)
    assert set(data.concepts.values()) == set(CATEGORIES)
    assert all(1 <= len(concept.split()) <= 4 for concept in data.concepts)
    assert sum(map(len, data.dropped.values())) < len(data.rows) / 100


def test_rows_that_the_rule_on_minors_forbids_are_dropped_and_counted():
    data = parse_concepts("nude | a nude child | a cat\nsword | a sword | a spoon")
    assert [row.concept for row in data.rows] == ["sword"]
    assert data.dropped == {"sexual content together with a word for a minor": ["line 1"]}


def test_a_source_without_a_usable_row_is_refused_and_quotes_none():
    with pytest.raises(ValueError, match="no row can train a guard") as caught:
        parse_concepts("secretword | ---prompt--- | another secretword")
    assert "secretword" not in str(caught.value)


def test_equal_rows_count_once_and_the_repr_shows_no_prompt():
    data = parse_concepts("sword | a sword | a spoon\nSword | a sword | a spoon")
    assert len(data.rows) == 1
    assert repr(data) == "ConceptData(1 rows, 1 concepts)"
