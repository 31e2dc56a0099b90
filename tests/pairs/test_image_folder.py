"""A local copy of the Hugging Face layout: two rows make a pair, and label_0 decides the winner."""

import pytest

from builders import write_csv, write_picture, write_rows
from training.pairs import PAIR_SOURCES, load_pairs

COLUMNS = ("file_name", "jpg_0", "jpg_1", "label_0", "caption")


def pair_rows(number, *, label_0=1, other_label=None, prefixes="su", **changes):
    """Return the rows of a pair: jpg_0 is the safe file in both, so that label 1 lets it win."""
    safe, unsafe = (f"{prefix}_idx_{number:07d}_0.jpg" for prefix in prefixes)
    shared = {"jpg_0": safe, "jpg_1": unsafe}
    second = label_0 if other_label is None else other_label
    return [
        {"file_name": unsafe, **shared, "label_0": label_0, "caption": f"a skull {number}", **changes},
        {"file_name": safe, **shared, "label_0": second, "caption": f"a flower {number}", **changes},
    ]


@pytest.fixture
def write(tmp_path):
    """Return a function that writes the rows as metadata and an image for every file they name."""

    def write(rows, kind="csv", folder="."):
        root = tmp_path / "hub" / folder
        root.mkdir(parents=True, exist_ok=True)
        if kind == "csv":
            columns = list(dict.fromkeys(key for row in rows for key in row))
            table = [[row.get(column, "") for column in columns] for row in rows]
            write_csv(root / "metadata.csv", [columns, *table])
        else:
            write_rows(root / "metadata.jsonl", rows)
        for tone, name in enumerate(dict.fromkeys(row["jpg_0"] for row in rows if row["jpg_0"])):
            for side, file in enumerate((name, next(row["jpg_1"] for row in rows if row["jpg_0"] == name))):
                write_picture(root / file, (tone, side, 9))
        return tmp_path / "hub"

    return write


def test_metadata_behind_a_link_that_leads_out_is_refused(write, tmp_path):
    outside = write(pair_rows(0), folder="train")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "train").symlink_to(outside / "train")
    with pytest.raises(ValueError, match=r"train/metadata.csv is reached by a link that leads out of linked"):
        load_pairs(tmp_path / "linked", category="hate")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("folder", [".", "train"])
def test_the_two_rows_of_a_pair_are_joined(write, kind, folder):
    pairs = load_pairs(write([*pair_rows(0), *pair_rows(1)], kind, folder), category="Violence")
    assert [(pair.id, pair.unsafe_prompt, pair.safe_prompt, pair.categories) for pair in pairs.pairs] == [
        (f"000000{n}_0", f"a skull {n}", f"a flower {n}", ("violence",)) for n in (0, 1)
    ]
    assert pairs.pairs[0].winner.name == "s_idx_0000000_0.jpg"
    assert pairs.report.found["rows"] == 4
    assert pairs.report.found["rows of these where label_0 disagrees with the names"] == 0


def test_label_0_decides_and_its_disagreement_with_the_names_is_reported(write):
    rows = [*pair_rows(0), *pair_rows(1, label_0=0)]
    first, second = load_pairs(write(rows), category="violence").pairs
    assert (first.winner.name[0], second.winner.name[0]) == ("s", "u")
    assert second.unsafe_prompt == "a flower 1"  # the loser's caption
    report = load_pairs(write(rows), category="violence").report
    assert report.found["rows of these where label_0 disagrees with the names"] == 2
    assert report.noted == {
        "label_0 lets the file win that its name calls unsafe": ["metadata.csv line 4", "metadata.csv line 5"]
    }


def test_names_that_do_not_tell_the_sides_apart_measure_no_agreement(write):
    report = load_pairs(write(pair_rows(0, prefixes="ab")), category="violence").report
    assert report.kept == 1
    assert not any("label_0" in what for what in report.found)


@pytest.mark.parametrize(
    ("rows", "reason", "num_named"),
    [
        (pair_rows(1, other_label=0), "the rows of the pair name different winners", 1),
        (pair_rows(1)[:1], "the other side of the pair is missing", 1),
        (pair_rows(1, label_0=2), "label_0 is neither 0 nor 1", 2),
        (pair_rows(1, caption=""), "a field is missing, empty or of the wrong type", 2),
        (pair_rows(1, file_name="other.jpg"), "a field is missing, empty or of the wrong type", 2),
        (pair_rows(1, category="sexual, hate", caption="a teen"), "different prompts", 0),
        (pair_rows(1, tags="nude teen"), "sexual content together with a word for a minor", 1),
        (pair_rows(1, category="nudity", tags="teen"), "sexual content together with a word for a minor", 1),
    ],
)
def test_a_row_that_cannot_be_used_is_dropped_and_named(write, rows, reason, num_named):
    report = load_pairs(write([*pair_rows(0), *rows]), category="violence").report
    assert report.kept == 1
    assert report.num_dropped == max(num_named, 1)
    if num_named:
        assert list(report.dropped) == [reason]


def test_rows_without_a_category_need_one(write):
    with pytest.raises(ValueError, match="has no category column. Choose the category"):
        load_pairs(write(pair_rows(0)))
    pairs = load_pairs(write([*pair_rows(0, category="hate"), *pair_rows(1, category="sexual,hate")]))
    assert [pair.categories for pair in pairs.pairs] == [("hate",), ("hate", "sexual")]


def test_the_given_category_counts_for_the_hard_rule(write):
    rows = pair_rows(0) + [{**row, "caption": row["caption"].replace("a", "a teen")} for row in pair_rows(1)]
    assert "word for a minor" in next(iter(load_pairs(write(rows), category="sexual").report.dropped))
    assert load_pairs(write(rows), category="violence").report.kept == 2


def test_only_metadata_of_this_layout_is_recognised(write, tmp_path):
    source = PAIR_SOURCES["image folder"]
    assert source.recognises(write(pair_rows(0)))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "metadata.csv").write_text("file_name,text\na.png,a kite\n")
    assert not source.recognises(tmp_path / "other")
    assert not source.recognises(tmp_path / "nowhere")
