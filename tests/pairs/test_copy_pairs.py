"""An import makes a new folder, complete or not at all, and leaves the original files alone."""

import json
import os

import pytest

from builders import pair_row, write_picture, write_rows
from training.pairs import load_pairs
from training.pairs.copy_pairs import copy_pairs


@pytest.fixture
def source(tmp_path):
    """A folder with two pairs and a neutral row; two images share a name in different folders."""
    root = tmp_path / "source"
    rows = []
    for number, folder in enumerate(("a", "b")):
        (root / folder).mkdir(parents=True)
        for tone, side in enumerate(("unsafe", "safe", "neutral")):
            write_picture(root / folder / f"{side}.png", (number, tone, 0))
        prompts = {"unsafe_prompt": f"a skull {number}", "safe_prompt": f"a flower {number}"}
        images = {f"{side}_image": f"{folder}/{side}.png" for side in ("unsafe", "safe")}
        rows.append(pair_row(folder, category="hate, Self_Harm", **prompts, **images))
    write_rows(root / "pairs.jsonl", rows)
    write_rows(root / "neutral.jsonl", [{"id": "n", "prompt": "a kite", "image": "a/neutral.png"}])
    return root


def listing(root):
    return sorted((file.relative_to(root).as_posix(), file.read_bytes()) for file in root.rglob("*.*"))


def test_a_copy_has_the_content_of_its_source(source, tmp_path):
    before = listing(source)
    pairs = load_pairs(source)
    copied = load_pairs(copy_pairs(pairs, tmp_path / "new" / "out"))
    assert copied.content_hash == pairs.content_hash
    assert [pair.id for pair in copied.pairs] == ["a", "b"]
    assert copied.categories == ("hate", "self-harm")
    assert [sample.id for sample in copied.neutral] == ["n"]
    assert listing(source) == before
    facts = json.loads((tmp_path / "new" / "out" / "import_report.json").read_text())
    assert (facts["kept"], facts["neutral"], facts["source"]) == (2, 1, "source")


def test_images_are_linked_where_the_disk_allows_it_and_copied_elsewhere(source, tmp_path, monkeypatch):
    pairs = load_pairs(source)
    linked = copy_pairs(pairs, tmp_path / "linked")
    assert os.path.samefile(linked / "images" / "unsafe.png", pairs.pairs[0].loser)

    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    copied = copy_pairs(pairs, tmp_path / "copied")
    assert not os.path.samefile(copied / "images" / "unsafe.png", pairs.pairs[0].loser)
    assert load_pairs(copied).content_hash == pairs.content_hash


@pytest.mark.parametrize("taken", ["file", "folder", "empty folder"])
def test_nothing_is_overwritten(source, tmp_path, taken):
    out = tmp_path / "out"
    out.write_text("precious") if taken == "file" else out.mkdir()
    if taken == "folder":
        (out / "pairs.jsonl").write_text("precious")
    with pytest.raises(FileExistsError, match="out already exists"):
        copy_pairs(load_pairs(source), out)
    existing = {"file": out, "folder": out / "pairs.jsonl", "empty folder": out}[taken]
    assert existing.is_dir() or existing.read_text() == "precious"


def test_a_stopped_import_leaves_nothing(source, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    (tmp_path / "place").mkdir()
    with pytest.raises(KeyboardInterrupt):
        copy_pairs(load_pairs(source), tmp_path / "place" / "out", on_progress=stop)
    assert list((tmp_path / "place").iterdir()) == []
    assert load_pairs(source).report.kept == 2


def test_images_keep_names_that_every_system_can_write_and_get_others_instead_of_the_rest(tmp_path):
    names = ["\u65e5" * 83 + ".png", "a?.png", "caf\u00e9.png", "cafe\u0301.PNG"]
    rows = []
    for number, folder in enumerate(("a", "b")):
        files = [tmp_path / "source" / folder / name for name in names[2 * number : 2 * number + 2]]
        files[0].parent.mkdir(parents=True)
        for tone, file in enumerate(files):
            write_picture(file, (number, tone, 0))
        images = {"unsafe_image": f"{folder}/{files[0].name}", "safe_image": f"{folder}/{files[1].name}"}
        rows.append(pair_row(folder, **images))
    write_rows(tmp_path / "source" / "pairs.jsonl", rows)
    pairs = load_pairs(tmp_path / "source")
    copied = copy_pairs(pairs, tmp_path / ("\u65e5" * 85))  # 255 bytes
    assert load_pairs(copied, decode=True).content_hash == pairs.content_hash
    written = {file.name for file in (copied / "images").iterdir()}
    assert written == {"0.png", "1.png", "caf\u00e9.png", "3_cafe\u0301.PNG"}
