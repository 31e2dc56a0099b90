"""Every point is where its axes say, and no label hides another."""

import pytest
import scatter
from scatter import _free_spot, _place, _span


def test_points_lie_between_the_axes_and_higher_values_lie_higher():
    span = _span([0.0, 1.0])
    low, high = (_place(value, span, 1) for value in (0.0, 1.0))
    assert scatter.TOP < high < low < scatter.SIZE[1] - scatter.BOTTOM
    assert scatter.LEFT < _place(0.0, span, 0) < _place(1.0, span, 0) < scatter.SIZE[0] - scatter.RIGHT


def test_labels_of_equal_points_do_not_hide_each_other():
    taken = []
    for _ in range(12):
        taken.append(_free_spot((300, 80, 380, 93), taken))
    rows = sorted(box[1] for box in taken)
    assert all(after - before >= 13 for before, after in zip(rows, rows[1:], strict=False))
    assert rows[0] >= scatter.TOP - scatter.LINE


def test_a_label_hides_no_point():
    point = (340, 80, 348, 88)
    left, top, right, bottom = _free_spot((300, 78, 380, 91), [point])
    assert bottom <= point[1] or top >= point[3]


@pytest.mark.parametrize("points", [{"one": (0.5, 0.5)}, {str(n): (0.0, 1.0) for n in range(16)}])
def test_equal_values_are_drawn_too(points):
    picture = scatter.scatter(points, title="t", x_name="x", y_name="y")
    colours = {colour for _, colour in picture.getcolors(1 << 20)}
    assert (0x2F, 0x6F, 0xDB) in colours
