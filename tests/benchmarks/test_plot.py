"""Every point is where its axes say, and no name covers another name or a point."""

import itertools

import pytest
from PIL import Image, ImageColor

from plot import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, SHARES, TOP, WIDTH, Plot


@pytest.fixture
def plot():
    return Plot("title", "to the right", "upwards")


def _overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_shares_are_between_the_axes_and_higher_shares_are_higher(plot):
    (left, low), (right, high) = (plot.place_of((share, share)) for share in (SHARES[0], SHARES[-1]))
    assert LEFT < left < right < WIDTH - RIGHT
    assert TOP < high < low < HEIGHT - BOTTOM


def test_counts_are_on_a_logarithmic_axis():
    places = [Plot("", "", "", counts=[2, 4, 8]).place_of((count, 0))[0] for count in (2, 4, 8)]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1])


@pytest.mark.parametrize("at", [(1, 0), (0, 1), (0.5, 0.5), (1, 1)])
def test_names_of_equal_points_cover_neither_each_other_nor_a_point(plot, at):
    near = (at[0] - 0.02, at[1] - 0.01)
    for point in (at, near):
        plot.point(point, 0)
    for number in range(12):
        plot.name(f"method {number}", at, number)
    assert len(plot.taken) == 14
    assert not any(_overlap(*pair) for pair in itertools.combinations(plot.taken[2:], 2))
    assert not any(_overlap(name, point) for name in plot.taken[2:] for point in plot.taken[:2])
    assert all(left > LEFT and right < WIDTH for left, _, right, _ in plot.taken[2:])


def test_only_the_picture_is_written_and_it_has_its_colours(plot, tmp_path):
    plot.lines({"one": [(0, 0.5), (1, 0.5)], "method": [(0, 0.1), (1, 0.9)]})
    plot.save(tmp_path / "new" / "plot.png", "below")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["plot.png"]
    with Image.open(tmp_path / "new" / "plot.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert ImageColor.getrgb(COLOURS[1]) in colours


def test_no_name_stands_on_a_line(plot):
    plot.lines(
        {name: [(0, height), (1, height)] for name, height in (("one", 1), ("two", 0.98), ("three", 0))}
    )
    names, rest = plot.taken[-3:], plot.taken[:-3]
    assert len(rest) > 3 * 50  # boxes of the dots along the lines
    assert not any(_overlap(name, dot) for name in names for dot in rest)
