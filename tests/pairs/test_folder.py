"""A folder of pairs is read; every row that cannot be used is counted and named, and none is used."""

import os
import shutil
import struct
import zlib

import pytest
from PIL import Image

from builders import pair_row, write_picture, write_rows
from training.pairs import PAIR_SOURCES, load_pairs
from training.pairs.copy_pairs import copy_pairs


def row(name, category="violence", **changes):
    images = {f"{side}_image": f"images/{name}_{side}.png" for side in ("unsafe", "safe")}
    return pair_row(name, **{"category": [category]} | images | changes)


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes a folder of pairs: rows, neutral rows, and every image they may name."""
    root = tmp_path / "pairs"
    (root / "images").mkdir(parents=True)
    for number, name in enumerate("abcdef"):
        for side, tone in (("safe", 1), ("unsafe", 2), ("neutral", 3)):
            write_picture(root / "images" / f"{name}_{side}.png", (number, tone, 0))

    def write(rows, neutral=()):
        write_rows(root / "pairs.jsonl", rows)
        if neutral:
            write_rows(root / "neutral.jsonl", neutral)
        return root

    return write


def dropped_by(root):
    report = load_pairs(root).report
    (reason,) = report.dropped
    assert report.dropped[reason] == ["bad"]
    assert f"- {reason}: 1 (bad)" in report.text()
    return reason


def test_a_pair_keeps_its_prompts_and_images_apart(folder):
    root = folder([row("a")])
    (pair,) = load_pairs(root).pairs
    assert (pair.id, pair.categories) == ("a", ("violence",))
    assert (pair.unsafe_prompt, pair.safe_prompt) == ("a skull a", "a flower a")
    assert pair.winner == root / "images" / "a_safe.png"
    assert pair.loser == root / "images" / "a_unsafe.png"


def test_the_source_is_registered(folder):
    assert PAIR_SOURCES["folder"].recognises(folder([row("a")]))
    assert not PAIR_SOURCES["folder"].recognises(folder([row("a")]).parent)


def test_its_repr_holds_no_prompt(folder):
    assert repr(load_pairs(folder([row("a")]))) == "SafetyPairs(pairs, 1 pairs, 0 neutral)"


def test_categories_are_read_as_text_or_list_in_any_spelling(folder):
    pairs = load_pairs(
        folder([row("a", category="Self_Harm"), row("b") | {"category": "Harrasment, my own"}])
    )
    assert [pair.categories for pair in pairs.pairs] == [("self-harm",), ("harassment", "my own")]
    assert pairs.categories == ("self-harm", "harassment", "my own")


def test_neutral_rows_are_read_where_there_are_any(folder):
    pairs = load_pairs(folder([row("a")], [{"id": "n", "prompt": "a kite", "image": "images/a_neutral.png"}]))
    (sample,) = pairs.neutral
    assert (sample.id, sample.prompt, sample.image.name) == ("n", "a kite", "a_neutral.png")
    assert load_pairs(folder([row("a")])).report.kept == 1


def test_broken_neutral_rows_are_dropped_and_named(folder):
    pairs = load_pairs(folder([row("a")], [{"id": "n", "prompt": "a kite", "image": "gone.png"}]))
    assert pairs.neutral == ()
    assert pairs.report.dropped == {"an image file is missing": ["neutral n"]}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"safe_prompt": None}, "missing, empty or of the wrong type"),
        ({"unsafe_prompt": "  "}, "missing, empty or of the wrong type"),
        ({"safe_image": 7}, "missing, empty or of the wrong type"),
        ({"category": []}, "missing, empty or of the wrong type"),
        ({"safe_prompt": "----prompt-------"}, "placeholder"),
        ({"safe_prompt": "A skull  BAD", "unsafe_prompt": "a skull bad"}, "both prompts are the same"),
        ({"safe_image": "images/b_unsafe.png"}, "both images are the same"),
        ({"safe_image": "images/gone.png"}, "an image file is missing"),
        ({"safe_image": "images"}, "an image file is missing"),
        ({"safe_image": "pairs.jsonl"}, "an image file cannot be read"),
        ({"safe_image": "../pairs/images/b_safe.png"}, "leads out of the folder"),
        ({"safe_image": "/etc/hostname"}, "leads out of the folder"),
        ({"safe_image": "C:\\b_safe.png"}, "leads out of the folder"),
        ({"safe_image": "b" * 5000}, "an image file is missing"),
        ({"unsafe_image": "\\\\server\\share\\b.png"}, "leads out of the folder"),
        (
            {"category": "sexual", "unsafe_prompt": "a child"},
            "sexual content together with a word for a minor",
        ),
        ({"category": "sexual", "tags": ["teen"]}, "sexual content together with a word for a minor"),
    ],
)
def test_a_row_that_cannot_be_used_is_dropped_with_its_reason(folder, changes, reason):
    bad = row("b") | {"id": "bad"} | changes
    assert reason in dropped_by(folder([row("a"), bad]))


def test_a_row_that_breaks_the_hard_rule_is_counted_there_whatever_else_is_wrong(folder):
    bad = {"id": "bad", "category": ["nudity"], "safe_prompt": "a boy", "safe_image": "gone.png"}
    assert "word for a minor" in dropped_by(folder([row("a"), bad]))


def test_an_image_half_written_is_unreadable(folder):
    root = folder([row("a"), row("b") | {"id": "bad"}])
    image = Image.effect_noise((64, 64), 90)
    image.save(root / "images" / "b_safe.png")
    whole = (root / "images" / "b_safe.png").read_bytes()
    (root / "images" / "b_safe.png").write_bytes(whole[: len(whole) // 2])
    assert dropped_by(root) == "an image file cannot be read"


def test_an_image_with_damaged_pixels_is_found_only_by_decoding(folder):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    root = folder([row("a"), row("b") | {"id": "bad"}])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    damaged = header + chunk(b"IDAT", b"not compressed") + chunk(b"IEND", b"")
    (root / "images" / "b_safe.png").write_bytes(b"\x89PNG\r\n\x1a\n" + damaged)
    assert load_pairs(root).report.kept == 2
    assert load_pairs(root, decode=True).report.dropped == {"an image file cannot be read": ["bad"]}


def test_a_link_that_leads_out_of_the_folder_is_refused(folder, tmp_path):
    root = folder([row("a"), row("b", safe_image="images/link.png") | {"id": "bad"}])
    write_picture(tmp_path / "outside.png")
    (root / "images" / "link.png").symlink_to(tmp_path / "outside.png")
    assert dropped_by(root) == "an image is a link that leads out of the folder; put the file itself there"


def test_a_manifest_that_is_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    root = folder([row("a")], [{"id": "n", "prompt": "a kite", "image": "images/a_neutral.png"}])
    for name in ("neutral.jsonl", "pairs.jsonl"):
        (root / name).rename(tmp_path / name)
        (root / name).symlink_to(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} is a link that leads out of pairs"):
            load_pairs(root)


def test_a_snapshot_of_a_data_hub_is_read_through_its_links(folder, tmp_path):
    source = folder([row("a"), row("b")])
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "1a2b" / "pairs", tmp_path / "hub" / "blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(path for path in source.rglob("*") if path.is_file()):
        link = snapshot / file.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        file.rename(blobs / f"blob{number}")
        link.symlink_to(os.path.relpath(blobs / f"blob{number}", link.parent))
    pairs = load_pairs(snapshot)
    assert pairs.report.kept == 2
    copied = load_pairs(copy_pairs(pairs, tmp_path / "copied"))
    shutil.rmtree(tmp_path / "hub")
    assert copied.content_hash == load_pairs(tmp_path / "copied", decode=True).content_hash
    assert copied.pairs[0].winner.name == "a_safe.png"


SPELLINGS = {  # path in the manifest -> path on the disk
    "images/x.png": "images/x.PNG",
    "Images/X.png": "images/x.png",
    "images/caf\u00e9.png": "images/cafe\u0301.png",  # as macOS stores it
    "images/CAFE\u0301.png": "images/caf\u00e9.png",
    "images/\u30ac.png": "images/\u30ab\u3099.png",
}


@pytest.mark.parametrize("written", SPELLINGS)
def test_a_name_finds_the_file_that_differs_only_in_case_or_unicode_form_and_this_is_noted(folder, written):
    root = folder([row("a", safe_image=written), row("b")])
    write_picture(root / SPELLINGS[written], (9, 9, 9))
    report = load_pairs(root).report
    assert report.kept == 2
    assert report.noted == {"an image file has another letter case or Unicode form than its path": ["a"]}


def test_a_name_that_two_files_fit_in_another_case_is_missing_and_both_are_named(folder):
    root = folder([row("a"), row("b", safe_image="images/x.png") | {"id": "bad"}])
    write_picture(root / "images" / "X.png")
    write_picture(root / "images" / "x.PNG")
    assert dropped_by(root) == "an image file is missing"
    assert "  - bad: images/x.png is not there; there is X.png, x.PNG" in load_pairs(root).report.text()


def test_a_missing_file_is_named_with_its_neighbour_of_another_ending(folder):
    root = folder([row("a"), row("b", safe_image="images/b_safe.jpg") | {"id": "bad"}])
    report = load_pairs(root).report
    assert report.details == {"bad": "images/b_safe.jpg is not there; there is b_safe.png"}
    assert report.facts()["details"] == report.details


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"safe_image": "../x.png"}, "../x.png is no path inside the folder"),
        ({"safe_image": "aux.png"}, "aux.png is no path inside the folder"),
        ({"safe_image": "images/NUL"}, "images/NUL is no path inside the folder"),
        ({"safe_image": "pairs.jsonl"}, "pairs.jsonl (UnidentifiedImageError)"),
        ({"safe_image": "\u3042" * 300}, "\u3042" * 120 + "... is not there"),
    ],
)
def test_a_dropped_row_names_the_file_and_what_is_wrong_with_it(folder, changes, detail):
    root = folder([row("a"), row("b") | {"id": "bad"} | changes])
    assert load_pairs(root).report.details == {"bad": detail}


def test_a_kind_of_image_without_a_rule_is_counted_by_its_name(folder):
    root = folder([row(name) for name in "abcd"])
    for name, kind in (("a", "GIF"), ("b", "GIF"), ("c", "TIFF")):
        Image.new("RGB", (8, 8), "red").save(root / "images" / f"{name}_safe.png", format=kind)
    assert load_pairs(root).report.dropped == {
        "an image file cannot be read: it is a file of the kind GIF": ["a", "b"],
        "an image file cannot be read: it is a file of the kind TIFF": ["c"],
    }


def test_what_the_conversion_of_an_image_changes_is_noted_once_a_row(folder):
    root = folder([row(name) for name in "abc"])
    for side in ("safe", "unsafe"):
        colour = (len(side), 0, 0, 128)
        Image.new("RGBA", (8, 8), colour).save(root / "images" / f"a_{side}.png")
    Image.new("I;16", (8, 8), 4000).save(root / "images" / "b_safe.png")
    report = load_pairs(root).report
    assert report.kept == 3
    assert report.noted == {
        "an image has an alpha channel; transparent parts are laid on white": ["a"],
        "an image has 16 bits per colour; the upper 8 are used": ["b"],
    }


def test_paths_with_backslashes_work_inside_the_folder(folder):
    root = folder([row("a", safe_image="images\\a_safe.png")])
    assert load_pairs(root).pairs[0].winner == root / "images" / "a_safe.png"


def test_the_second_row_of_an_id_or_a_content_is_dropped(folder):
    twice, copied = row("b") | {"id": "a"}, row("a") | {"id": "copy"}
    report = load_pairs(folder([row("a"), twice, copied])).report
    assert report.kept == 1
    assert report.dropped == {
        "the id occurs before": ["a"],
        "the same prompts and images occur before": ["copy"],
    }


@pytest.mark.parametrize(
    "changes", [{"safe_image": "images/a_unsafe.png"}, {"unsafe_image": "images/a_safe.png"}]
)
def test_an_image_that_is_safe_in_one_row_and_unsafe_in_another_is_dropped(folder, changes):
    root = folder([row("a"), row("b") | {"id": "bad"} | changes])
    assert dropped_by(root) == "an image is safe in one row and unsafe in another"


def test_a_neutral_image_that_is_the_unsafe_side_of_a_pair_is_dropped(folder):
    neutral = [
        {"id": name, "prompt": "a kite", "image": f"images/{name}.png"} for name in ("a_unsafe", "a_safe")
    ]
    pairs = load_pairs(folder([row("a")], neutral))
    assert [sample.id for sample in pairs.neutral] == ["a_safe"]
    assert pairs.report.dropped == {"an image is safe in one row and unsafe in another": ["neutral a_unsafe"]}


def test_images_may_be_shared_on_the_same_side(folder):
    shared = row("b", safe_image="images/a_safe.png"), row("c", unsafe_image="images/a_unsafe.png")
    assert load_pairs(folder([row("a"), *shared])).report.kept == 3


def test_lines_that_are_not_objects_are_named_by_their_number(folder):
    report = load_pairs(folder(["{broken", "", '["list"]', row("a")])).report
    assert report.dropped == {"not a JSON object on one line": ["pairs.jsonl line 1", "pairs.jsonl line 3"]}


@pytest.mark.parametrize("changes", [{"safe_prompt": "half a pair \ud83d"}, {"safe_image": "\ud83d.png"}])
def test_a_row_with_half_a_letter_is_named_by_its_number(folder, changes):
    assert load_pairs(folder([row("a"), row("b") | changes])).report.dropped == {
        "not a JSON object on one line": ["pairs.jsonl line 2"]
    }


def test_a_byte_order_mark_and_windows_lines_are_read(folder):
    root = folder([row("a"), row("b")])
    text = (root / "pairs.jsonl").read_bytes().replace(b"\n", b"\r\n")
    (root / "pairs.jsonl").write_bytes(b"\xef\xbb\xbf" + text)
    assert load_pairs(root).report.kept == 2


def test_long_lists_of_dropped_rows_are_cut_in_the_text_only(folder):
    report = load_pairs(folder([row("a"), *["{"] * 9])).report
    assert report.num_dropped == 9
    assert "9 (pairs.jsonl line 2," in report.text()
    assert "and 4 more" in report.text()


def test_one_category_is_selected_in_any_spelling_and_the_rest_counted(folder):
    root = folder([row("a"), row("b", category="self-harm"), row("c", category="hate")])
    pairs = load_pairs(root, category="Self Harm")
    assert [pair.id for pair in pairs.pairs] == ["b"]
    assert "2 pairs of other categories passed over" in pairs.report.text()


def test_max_pairs_keeps_the_first_pairs_and_counts_the_rows_not_read(folder):
    pairs = load_pairs(folder([row(name) for name in "abcd"]), max_pairs=2)
    assert [pair.id for pair in pairs.pairs] == ["a", "b"]
    assert pairs.report.beyond_limit == 2
    assert "2 rows beyond max_pairs" in pairs.report.text()


def test_an_error_about_an_unknown_category_lists_the_categories_of_the_pairs(folder):
    root = folder([row("a"), row("b", category="hate")])
    with pytest.raises(ValueError, match=r"category 'sexual'.*its pairs are of: hate, violence"):
        load_pairs(root, category="sexual")


def test_a_folder_without_a_usable_row_fails_with_the_reasons(folder):
    with pytest.raises(ValueError, match=r"(?s)no row of pairs\.jsonl.*missing: 1 \(a\)"):
        load_pairs(folder([row("a", safe_image="gone.png")]))
    with pytest.raises(ValueError, match=r"pairs\.jsonl in pairs has no rows"):
        load_pairs(folder([]))


def test_a_folder_without_manifest_says_what_it_holds_and_what_to_write(folder, tmp_path):
    root = folder([])
    (root / "pairs.jsonl").unlink()
    with pytest.raises(
        ValueError, match=r"no pairs\.jsonl; it holds 1 other entries, such as images.*unsafe_prompt"
    ):
        load_pairs(root)
    with pytest.raises(ValueError, match=r"nowhere does not exist.*holds pairs\.jsonl"):
        load_pairs(tmp_path / "nowhere")


def test_a_negative_limit_is_refused(folder):
    with pytest.raises(ValueError, match="max_pairs must be 0"):
        load_pairs(folder([row("a")]), max_pairs=-1)


def test_the_content_hash_follows_images_and_prompts_but_not_names(folder, tmp_path):
    root = folder([row("a")])
    before = load_pairs(root).content_hash
    moved = shutil.copytree(root, tmp_path / "moved")
    assert load_pairs(moved).content_hash == before
    write_rows(moved / "pairs.jsonl", [row("a") | {"id": "renamed"}])
    assert load_pairs(moved).content_hash == before
    write_rows(moved / "pairs.jsonl", [row("a", safe_prompt="a tree")])
    assert load_pairs(moved).content_hash != before
    write_picture(root / "images" / "a_safe.png", (99, 0, 0))
    assert load_pairs(root).content_hash != before
