"""Paths of a manifest stay inside its folder, and bare names are found below it."""

import pytest

from training.system.paths import ImageIndex, contained_path


@pytest.mark.parametrize("written", ["", ".", "a\0b", "a/../..", "a.png:stream", "//x/y", "~/../.."])
def test_odd_paths_are_not_contained(tmp_path, written):
    assert contained_path(tmp_path.resolve(), written) is None


def test_parts_may_be_separated_by_slashes_or_backslashes(tmp_path):
    root = tmp_path.resolve()
    assert contained_path(root, "a/b.png") == contained_path(root, "a\\b.png") == root / "a" / "b.png"


def test_a_bare_name_is_found_in_the_first_subfolder_that_has_it(tmp_path):
    for folder in ("b", "a/deep"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.png").touch()
    index = ImageIndex(tmp_path.resolve())
    assert index.locate("x.png") == "a/deep/x.png"
    assert index.locate("b/x.png") == "b/x.png"
    assert index.locate("gone.png") == "gone.png"
