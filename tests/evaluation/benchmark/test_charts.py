"""Charts: names lie inside the plot and on nothing else, and colours tell the models apart."""

from dataclasses import replace
from itertools import combinations

import pytest

from painted import Painter, make_bench, prompt_set, run_report
from training.evaluation.benchmark.canvas import Box, text_width
from training.evaluation.benchmark.charts import NAME_HEIGHT, NAME_SIZE, name_places, trade_off

PLOT = Box(80.0, 60.0, 1150.0, 380.0)
LEFT, TOP, RIGHT, BOTTOM = PLOT
SHORT, LONG = "base", "alignguard_merged_expert_of_hate"


@pytest.mark.parametrize(
    "points",
    [
        [(LEFT, TOP)] * 9,
        [(LEFT, BOTTOM)] * 9,
        [(RIGHT, BOTTOM)] * 9,
        [(RIGHT, TOP), (LEFT, BOTTOM), (RIGHT, BOTTOM), (LEFT, TOP)],
        [(LEFT + 40 * n, BOTTOM - 3 * n) for n in range(9)],
        [((LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2)] * 9,
    ],
)
def test_every_name_lies_inside_the_plot_and_on_no_other_and_no_point(points):
    names = [SHORT, *[LONG] * (len(points) - 1)]
    places = name_places(names, points, PLOT)
    boxes = [
        (x, y, x + text_width(name, NAME_SIZE), y + NAME_HEIGHT)
        for name, (x, y) in zip(names, places, strict=True)
    ]
    for left, top, right, bottom in boxes:
        assert LEFT <= left < right <= RIGHT
        assert TOP <= top < bottom <= BOTTOM
        assert not any(left < x < right and top < y < bottom for x, y in points)
    for one, other in combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_the_rows_of_the_grid_carry_the_colours_of_the_models(tmp_path):
    painters = {f"{n}": Painter(cured=n, tint=0.02 * n) for n in range(9)}
    picture = run_report(make_bench(painters), tmp_path).picture()
    column = [picture.getpixel((29, y)) for y in range(picture.height)]
    for colour in ((0x56, 0xB4, 0xE9), (0xA6, 0xD9, 0x6A)):  # of the second model and of the ninth
        assert colour in column[200:]


def test_a_model_whose_change_was_not_measured_is_no_point_of_the_trade_off(tmp_path):
    sets = [prompt_set(bad=3, neutral=0)]
    painters = {"base": Painter(), "expert": Painter()}
    report = run_report(make_bench(painters, sets), tmp_path / "none", sets)
    assert "not measured, neutral pictures: no neutral prompt" in report.text()
    assert not any(map(trade_off, report.findings.results))
    report = run_report(make_bench(painters), tmp_path / "some")
    assert all(map(trade_off, report.findings.results))
    assert "neutral pictures" not in report.facts()["not_measured"]
    _, expert = report.findings.results
    assert trade_off(replace(expert, changes={})) is None
