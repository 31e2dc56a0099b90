"""Pairs move whole or not at all, also between disks; nothing is overwritten and nothing is left behind."""

import errno
from pathlib import Path

import pytest

from builders import write_picture
from tiny_checkpoint import write_pairs
from training.pairs import load_pairs
from training.pairs.move_pairs import move_pairs


def listing(root):
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(params=["one disk", "two disks"])
def disks(request, monkeypatch):
    """Let renames between `listed` and `kept` fail as they do between disks."""
    if request.param == "one disk":
        return
    rename, stat = Path.rename, Path.stat

    def across(path, target):
        if ("listed" in path.parts) != ("listed" in Path(target).parts):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(path, target)

    class OnDisk:
        def __init__(self, status, disk):
            self._status, self.st_dev = status, disk

        def __getattr__(self, name):
            return getattr(self._status, name)

    monkeypatch.setattr(Path, "rename", across)
    monkeypatch.setattr(Path, "stat", lambda path, **kw: OnDisk(stat(path, **kw), "listed" in path.parts))


@pytest.mark.usefixtures("disks")
def test_a_folder_keeps_its_content_and_leaves_its_old_place(tmp_path):
    source = write_pairs(tmp_path / "listed" / "alignguard_pairs" / "hate", "hate")
    before, content = listing(source), load_pairs(source).content_hash
    target = tmp_path / "kept" / "alignguard_pairs" / "hate"
    assert move_pairs(source, target) == {source: target}
    assert listing(target) == before
    assert load_pairs(target).content_hash == content
    assert listing(tmp_path / "listed") == set()
    assert listing(tmp_path / "kept") == {f"alignguard_pairs/hate/{name}" for name in before}


@pytest.mark.usefixtures("disks")
def test_a_csv_takes_the_folder_of_its_images_along(tmp_path):
    csv, images = write_csv(tmp_path / "listed", "train")
    target = tmp_path / "kept" / "own" / "train.csv"
    move_pairs(csv, target)
    assert len(load_pairs(target).pairs) == 1
    assert not csv.exists()
    assert not images.exists()


def write_csv(folder, images):
    folder.mkdir(parents=True)
    lines = ["prompt,image,category"]
    for tone, (side, prompt) in enumerate((("u", "a skull"), ("s", "a ball"))):
        name = f"{side}_idx_0000001_0.png"
        (folder / images).mkdir(exist_ok=True)
        write_picture(folder / images / name, (tone, 0, 0))
        lines.append(f"{prompt},{name},hate")
    (folder / "train.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "train.csv", folder / images


def test_a_second_move_that_fails_takes_the_first_one_back(tmp_path, monkeypatch):
    csv, images = write_csv(tmp_path / "listed", "train")
    before, rename = listing(tmp_path / "listed"), Path.rename

    def refuse_csv(path, target):
        if path == csv:
            raise PermissionError("in use")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_csv)
    with pytest.raises(PermissionError, match="in use"):
        move_pairs(csv, tmp_path / "kept" / "train.csv")
    assert listing(tmp_path / "listed") == before
    assert listing(tmp_path / "kept") == set()


def test_an_unfinished_run_moves_too(tmp_path):
    (tmp_path / "listed" / "rows").mkdir(parents=True)
    move_pairs(tmp_path / "listed", tmp_path / "kept")
    assert (tmp_path / "kept" / "rows").is_dir()


def test_what_would_overwrite_lose_or_miss_pictures_is_refused_and_changes_nothing(tmp_path):
    source = write_pairs(tmp_path / "hate", "hate")
    csv, _ = write_csv(tmp_path / "flat", ".")
    (tmp_path / "taken").mkdir()
    (tmp_path / "notes.txt").touch()
    before = listing(tmp_path)
    refusals = {
        (source, tmp_path / "taken"): (FileExistsError, "taken"),
        (source, source / "inner"): (ValueError, "is inside"),
        (csv, tmp_path / "kept" / "train.csv"): (ValueError, "into a folder of their own"),
        (tmp_path / "notes.txt", tmp_path / "kept"): (ValueError, "holds no pairs"),
        (tmp_path / "gone", tmp_path / "kept"): (FileNotFoundError, "there is no folder"),
    }
    for (old, new), (kind, sentence) in refusals.items():
        with pytest.raises(kind, match=sentence):
            move_pairs(old, new)
    assert listing(tmp_path) == before


def test_a_link_is_refused_because_the_pictures_would_stay(tmp_path):
    source = write_pairs(tmp_path / "hate", "hate")
    try:
        (tmp_path / "link").symlink_to(source, target_is_directory=True)
    except OSError:
        pytest.skip("no right to make links here")
    with pytest.raises(ValueError, match="is a link"):
        move_pairs(tmp_path / "link", tmp_path / "kept")
