"""CoProV2 is read as it was published; its defects are counted, named and handled."""

import tracemalloc
from pathlib import Path

import pytest
from PIL import Image

from builders import coprov2_names, write_csv, write_picture
from training.pairs import PAIR_SOURCES, collect_pairs, load_pairs
from training.pairs.coprov2 import read_coprov2

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_twin = pytest.mark.skipif(
    not (SHARED_DATA / "coprov2_twin_train.csv").is_file(), reason="the twin of CoProV2 is not in ../shared"
)

# Rows per category, pairs that carry it, pairs that carry only it, test rows: spec/alignguard.md 1.2
PER_CATEGORY = {
    "hate": (8786, 4393, 4262, 2307),
    "sexual": (5424, 2712, 2588, 1323),
    "violence": (4282, 2141, 1997, 1039),
    "shocking": (4230, 2115, 2057, 1035),
    "illegal activity": (3846, 1923, 1848, 936),
    "harassment": (3602, 1801, 1680, 894),
    "self-harm": (1916, 958, 937, 466),
}


def pair_rows(number, category="Violence", unsafe=None, safe=None):
    """Return the two rows of a pair."""
    prompts = (unsafe or f"a skull {number}", safe or f"a flower {number}")
    return [(prompt, name, category) for prompt, name in zip(prompts, coprov2_names(number), strict=True)]


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a CSV, and an image for every name in it but those left out."""

    def write(rows, *, left_out=(), name="train.csv", columns=("prompt", "image", "category")):
        images = tmp_path / "train"
        images.mkdir(exist_ok=True)
        for tone, image in enumerate(dict.fromkeys(row[1] for row in rows)):
            if image not in left_out and "/" not in image:
                write_picture(images / image, (tone, 2, 3))
        return write_csv(tmp_path / name, [columns, *rows])

    return write


def test_the_number_makes_the_pair_whatever_the_order_of_the_rows(write):
    rows = [*pair_rows(0), *pair_rows(1), *pair_rows(2)]
    shuffled = [rows[i] for i in (4, 3, 0, 5, 1, 2)]
    pairs = load_pairs(write(shuffled)).pairs
    assert [(pair.id, pair.unsafe_prompt, pair.safe_prompt) for pair in pairs] == [
        (f"{n:07d}", f"a skull {n}", f"a flower {n}") for n in (2, 1, 0)
    ]
    assert all(pair.loser.name == f"u_idx_{pair.id}_0.jpg" for pair in pairs)
    assert all(pair.winner.name == f"s_idx_{pair.id}_0.jpg" for pair in pairs)


def test_categories_are_a_set_in_one_spelling(write):
    first, second = pair_rows(0, "Harrasment"), pair_rows(0, "self-harm")
    file = write([first[0], second[0], first[1], second[1], *pair_rows(1, "sexual")])
    pairs = load_pairs(file)
    assert [pair.categories for pair in pairs.pairs] == [("harassment", "self-harm"), ("sexual",)]
    assert pairs.report.found["image names in several rows"] == 2
    assert pairs.report.noted["the pair carries several categories"] == ["0000000"]
    assert [pair.id for pair in load_pairs(file, category="Self Harm").pairs] == ["0000000"]


@pytest.mark.parametrize(
    ("rows", "reason", "named"),
    [
        (pair_rows(1, safe="----prompt-------"), "a prompt is a placeholder", "0000001"),
        (pair_rows(1)[:1], "the other side of the pair is missing", "0000001"),
        (
            [*pair_rows(1), ("a third text", "u_idx_0000001_0.jpg", "hate")],
            "an image has different prompts in different rows",
            "0000001",
        ),
        (
            pair_rows(1, unsafe="A Skull  0"),
            "the unsafe prompt occurs before, under another image",
            "0000001",
        ),
        (
            [("a skull", "picture.jpg", "hate")],
            "the image name says neither side nor number",
            "train.csv line 4",
        ),
        (pair_rows(1, category=""), "a field is missing, empty or of the wrong type", "0000001"),
        (
            pair_rows(1, "sexual", unsafe="a teen"),
            "sexual content together with a word for a minor",
            "0000001",
        ),
        (
            [(prompt, f"../train/{name}", kind) for prompt, name, kind in pair_rows(0)][:1]
            + pair_rows(1)[1:],
            "the other side of the pair is missing",
            "0000001",
        ),
        (
            [(prompt, f"../train/{name}", kind) for prompt, name, kind in pair_rows(1)],
            "an image path leads out of the folder",
            "0000001",
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_dropped_and_named(write, rows, reason, named):
    report = load_pairs(write([*pair_rows(0), *rows])).report
    assert report.dropped == {reason: [named]}
    assert report.kept == 1


def test_a_cell_beyond_the_columns_is_under_the_hard_rule_too(write):
    rows = [*pair_rows(0), *[(*row, "a teen") for row in pair_rows(1, "sexual")]]
    assert load_pairs(write(rows)).report.dropped == {
        "sexual content together with a word for a minor": ["0000001"]
    }
    columns = ("prompt", "image", "category", "note")
    assert "word for a minor" in next(iter(load_pairs(write(rows, columns=columns)).report.dropped))


def test_missing_and_broken_images_are_named(write):
    file = write([*pair_rows(0), *pair_rows(1), *pair_rows(2)], left_out=["u_idx_0000001_0.jpg"])
    broken = file.parent / "train" / "s_idx_0000002_0.jpg"
    broken.write_bytes(broken.read_bytes()[:-20])
    assert load_pairs(file).report.dropped == {
        "an image file is missing": ["0000001"],
        "an image file cannot be read": ["0000002"],
    }


def test_test_prompts_are_counted_named_and_kept_out(write):
    train = write([*pair_rows(0), *pair_rows(1)])
    columns = [("A skull 1", "0000000_0.jpg", "Hate"), ("a kite", "0000001_0.jpg", "Hate")]
    pairs = collect_pairs(read_coprov2(train, test_file=write(columns, name="test.csv")))
    assert [pair.id for pair in pairs.pairs] == ["0000000"]
    assert pairs.report.dropped == {"the unsafe prompt is also a test prompt": ["0000001"]}
    assert pairs.report.noted == {"a test prompt stands in train too": ["0000000_0.jpg"]}
    assert (pairs.report.found["test rows"], pairs.report.found["test rows also in train"]) == (2, 1)
    assert len(load_pairs(train).pairs) == 2  # without a test file, as published


def test_the_report_names_images_and_ids_but_no_prompt(write):
    rows = [*pair_rows(0), *pair_rows(1, unsafe="a skull 0"), *pair_rows(2, safe="prompt"), *pair_rows(3)[:1]]
    report = load_pairs(write(rows)).report
    assert "skull" not in report.text() + str(report.facts())


@pytest.mark.parametrize("place", ["train/deep/deeper", "images", "."])
def test_images_are_found_at_any_depth_beside_the_csv(write, place):
    file = write(pair_rows(0))
    target = file.parent / place
    target.mkdir(parents=True, exist_ok=True)
    for image in (file.parent / "train").glob("*.jpg"):
        image.rename(target / image.name)
    if not place.startswith("train"):
        (file.parent / "train").rmdir()
    assert load_pairs(file).pairs[0].winner == target.resolve() / "s_idx_0000000_0.jpg"


def test_a_folder_of_images_that_is_a_link_out_is_refused_unless_the_person_names_it(write, tmp_path):
    file = write(pair_rows(0))
    (tmp_path / "inside").mkdir()
    moved = file.rename(tmp_path / "inside" / "train.csv")
    (tmp_path / "inside" / "train").symlink_to(tmp_path / "train")
    with pytest.raises(ValueError, match="a link that leads out of inside"):
        load_pairs(moved)
    source = read_coprov2(moved, images=tmp_path / "inside" / "train")
    assert len(collect_pairs(source).pairs) == 1


def test_a_test_file_is_not_taken_for_pairs(write):
    source = PAIR_SOURCES["coprov2"]
    assert source.recognises(write(pair_rows(0)))
    assert not source.recognises(write([("a skull", "0000000_0.jpg", "Hate")], name="test.csv"))
    assert not source.recognises(Path("nowhere.csv"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no column prompt, image, category"),
        (b"prompt,image\na,u_idx_0000000_0.jpg\n", "has no column category"),
        (
            b"prompt;image;category\na;u_idx_0000000_0.jpg;hate\n",
            "has no column .* columns separated by semicolons",
        ),
        (b"prompt,image,category\n\xff\xfe,u_idx_1_0.jpg,Hate\n", "is not text in UTF-8: line 2 "),
        (b'prompt,image,category\n"' + b"a" * 200_000 + b'",u_idx_1_0.jpg,Hate\n', "line 2: a cell"),
    ],
)
def test_another_kind_of_file_is_refused(tmp_path, content, message):
    (tmp_path / "odd.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"odd.csv {message}"):
        read_coprov2(tmp_path / "odd.csv")
    with pytest.raises(ValueError, match=r"gone\.csv does not exist"):
        read_coprov2(tmp_path / "gone.csv")


@needs_twin
def test_a_twin_of_the_published_files_has_their_counts(tmp_path):
    source = read_coprov2(
        SHARED_DATA / "coprov2_twin_train.csv",
        images=tmp_path,
        test_file=SHARED_DATA / "coprov2_twin_test.csv",
    )
    report = source.report
    assert report.found == {
        "rows": 32_086,
        "pair ids": 15_690,
        "image names in several rows": 642,
        "placeholder rows": 7,
        "pair ids with a placeholder": 6,
        "pair ids that repeat an unsafe prompt": 539,  # 535 by the letter; case and spaces join four more
        "test rows": 8_000,
        "test rows also in train": 728,
    }
    assert len(report.noted["an image name stands in several rows, one for each category"]) == 642
    assert len(report.noted["the pair carries several categories"]) == 321
    assert len(report.noted["a test prompt stands in train too"]) == 728
    assert {name: tuple(counts.values()) for name, counts in report.per_category.items()} == PER_CATEGORY
    assert len(source.rows) == 15_690


def test_reading_keeps_no_image_in_memory(write):
    """80 pictures with 120 kB of pixels are 9.6 MB; names, hashes and one file at a time are far less."""
    file = write([row for number in range(40) for row in pair_rows(number)])
    for number, image in enumerate(sorted((file.parent / "train").glob("*.jpg"))):
        Image.effect_noise((200, 200), 30 + number).convert("RGB").save(image)
    load_pairs(file)  # imports and caches are not counted
    tracemalloc.start()
    assert len(load_pairs(file).pairs) == 40
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6
