"""Paths stay inside their folder, and names are found in any spelling that some system takes for the same."""

import os

import pytest

from training.system.paths import FolderFiles, OutsideError, is_inside, path_below, unusable_name


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return (tmp_path / "root").resolve()


def place(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    "written",
    [
        *("", ".", "./.", "a\0b", "..", "a/../..", "a/../b", "..\\b", "/etc/x", "//x/y", "\\\\server\\share"),
        *("a.png:stream", "C:\\x", "C:x", "~/../.."),
        *("con", "a/NUL", "aux.png", "COM1.tar.gz", "lpt9", "nul .txt", "com\u00b9", "CONIN$"),
    ],
)
def test_a_path_that_could_lie_elsewhere_on_some_system_is_refused(root, written):
    assert path_below(root, written) is None
    with pytest.raises(OutsideError, match="is no path inside the folder"):
        FolderFiles(root).find(written)


@pytest.mark.parametrize("written", ["a/b.png", "a\\b.png", "./a//b.png"])
def test_parts_may_be_separated_by_slashes_or_backslashes(root, written):
    assert path_below(root, written) == root / "a" / "b.png"


@pytest.mark.parametrize("written", ["console.png", "auxiliary/x", "com10", "..x", "a..b", "com"])
def test_names_that_only_look_like_a_device_or_a_way_up_are_allowed(root, written):
    assert path_below(root, written) == root / written


def test_a_bare_name_is_found_in_the_first_subfolder_that_has_it(root):
    place(root, "b/x.png", "a/deep/x.png", "a/Y.PNG", "c/y.png")
    files = FolderFiles(root)
    assert files.locate("x.png") == "a/deep/x.png"
    assert files.locate("b/x.png") == "b/x.png"
    assert files.locate("y.png") == "c/y.png"  # the exact spelling comes first
    assert files.locate("Y.png") == "a/Y.PNG"
    assert files.locate("gone.png") == "gone.png"
    assert files.locate("x" * 5000) == "x" * 5000


def test_a_file_is_found_as_written_before_any_other_spelling(root):
    place(root, "a/X.png", "A/x.png")
    files = FolderFiles(root)
    assert files.find("a/X.png") == (root / "a" / "X.png", False)
    assert files.find("A/X.PNG") == (root / "A" / "x.png", True)
    with pytest.raises(FileNotFoundError, match="a/x.jpg is not there; there is X.png"):
        files.find("a/x.jpg")


def link(path, target, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.symlink_to(target, **options)
    except OSError:
        pytest.skip("no right to make links here")


def test_links_are_followed_inside_the_folder_and_never_out_of_it(root, tmp_path):
    place(tmp_path, "outside/x.png", "root/pool/x.png")
    link(root / "in.png", root / "pool" / "x.png")
    link(root / "out.png", tmp_path / "outside" / "x.png")
    link(root / "folder", tmp_path / "outside", target_is_directory=True)
    link(root / "loop.png", root / "loop.png")
    link(root / "broken.png", root / "blobs" / "1234")
    files = FolderFiles(root)
    assert files.find("in.png").path == root / "in.png"
    for written in ("out.png", "OUT.png", "folder/x.png"):
        with pytest.raises(OutsideError, match="is a link that leads out") as refused:
            files.find(written)
        assert refused.value.is_link
    for written in ("loop.png", "broken.png"):
        with pytest.raises(FileNotFoundError, match="is a link to a file that is not there"):
            files.find(written)
    for written in ("folder/X.PNG", "folder/gone.png"):  # what lies outside is not listed
        with pytest.raises(FileNotFoundError, match=r"is not there$"):
            files.find(written)


def test_the_blobs_of_a_snapshot_are_inside_it_and_those_of_another_are_not(tmp_path):
    for hub in ("one", "two"):
        place(tmp_path, f"{hub}/blobs/1234")
    snapshot = tmp_path / "one" / "snapshots" / "main"
    for depth in (snapshot, snapshot / "train"):
        link(depth / "x.png", os.path.relpath(tmp_path / "one" / "blobs" / "1234", depth))
        link(depth / "y.png", tmp_path / "two" / "blobs" / "1234")
        assert is_inside(depth / "x.png", depth)
        assert not is_inside(depth / "y.png", depth)
    assert not is_inside(snapshot / "x.png", tmp_path / "two")


@pytest.mark.parametrize("name", ["a.png", "日" * 85, "é.safetensors", "a b", ".hidden"])
def test_a_name_that_every_system_can_write_is_usable(root, name):
    assert unusable_name(root / name) is None


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("a" * 256, "more than 255 bytes"),
        ("日" * 86, "more than 255 bytes"),
        ("aux.safetensors", "reserves"),
        ("a?", "allows neither"),
        ("a.", "allows neither"),
        ("a ", "allows neither"),
        ("a\nb", "allows neither"),
    ],
)
def test_a_name_that_some_system_cannot_write_is_refused_with_the_cause(root, name, cause):
    assert cause in unusable_name(root / name)
