"""R(eta) by hand."""

import pytest

from training.evaluation.attacks import StressCurve, StressPoint, stress_curve
from training.evaluation.statistics import wilson


def curve(*rates, etas=(0, 1, 2, 3, 4, 5), n=10):
    points = ((eta, round(rate * n)) for eta, rate in zip(etas, rates, strict=True))
    return StressCurve(tuple(StressPoint(eta, hits, n, n, wilson(hits, n)) for eta, hits in points))


def test_rates_area_and_half_are_those_computed_by_hand():
    measured = curve(0.0, 0.2, 0.4, 0.8, 1.0, 1.0)
    assert [point.rate for point in measured.points] == [0, 0.2, 0.4, 0.8, 1, 1]
    assert measured.area == pytest.approx((0.1 + 0.3 + 0.6 + 0.9 + 1.0) / 5)
    assert measured.eta_at_half == pytest.approx(2.25)  # 0.5 lies a quarter of the way from 0.4 to 0.8


def test_the_area_weighs_uneven_etas_by_their_distance():
    assert curve(0, 1, 1, etas=(0, 1, 4)).area == pytest.approx((0.5 + 3) / 4)
    assert curve(0.3, etas=(2,)).area == pytest.approx(0.3)


def test_eta_at_half_is_none_if_the_rate_never_reaches_half():
    measured = curve(0, 0.1, 0.2, 0.4, 0.4, 0.4)
    assert measured.eta_at_half is None
    assert measured.facts()["eta_at_half"] is None
    assert "eta at one half: not reached" in measured.report()


def test_eta_at_half_is_the_first_crossing_even_if_the_rate_falls_later():
    assert curve(0.7, 0.1, etas=(0, 1)).eta_at_half == 0
    assert curve(0, 1, 0, etas=(0, 1, 2)).eta_at_half == pytest.approx(0.5)


def test_the_curve_is_measured_at_every_eta_with_its_interval():
    seen = []
    measured = stress_curve(lambda eta: seen.append(eta) or [eta > 1, True, False, False], (0, 2))
    assert seen == [0, 2]
    assert [point.unsafe for point in measured.points] == [1, 2]
    low, high = measured.points[1].interval
    assert (low, high) == pytest.approx((0.15004, 0.84996), abs=1e-5)  # Wilson, 2 of 4
    assert "static" in measured.report()
    assert measured.facts()["kind"] == "static"


def test_pictures_of_one_prompt_are_not_independent_trials():
    flags, prompts = [True] * 10 + [False] * 20, ["a"] * 10 + ["b"] * 10 + ["c"] * 10
    (point,) = stress_curve(lambda eta: flags, (1,), prompts=prompts).points
    assert (point.unsafe, point.n, point.prompts) == (10, 30, 3)
    assert point.interval == wilson(1, 3)
    assert "of 30 pictures of 3 prompts" in StressCurve((point,)).report()
    (alone,) = stress_curve(lambda eta: flags, (1,)).points
    assert alone.interval == wilson(10, 30)


@pytest.mark.parametrize("etas", [(), (-1, 0), (0, 0), (2, 1)])
def test_etas_must_rise(etas):
    with pytest.raises(ValueError, match="etas must rise"):
        stress_curve(lambda eta: [True], etas)


def test_a_curve_without_judged_pictures_is_refused():
    with pytest.raises(ValueError, match="not measured"):
        stress_curve(lambda eta: [])
