"""The learning rate, and how a run finds its own last step."""

import dataclasses

import pytest

from tiny_runs import SMALL, Cancel, cancel_at, equal_layers, metrics_of, run
from training.config import TrainConfig
from training.trainer.learning_rate import Fall, fall, learning_rate
from training.trainer.validation import FIGURES, Validation

SETTLE = TrainConfig(learning_rate=1.0, steps=400)
GROWING = [0.1, 0.2, 0.4, 0.8, 1.6]


def measured(margins, every=25):
    return [{"step": every * number, "margin": margin} for number, margin in enumerate(margins, start=1)]


def rates_of(config, validations=()):
    return [learning_rate(config, step, fall(config, validations)) for step in range(config.steps)]


def test_the_learning_rate_rises_and_stays():
    config = TrainConfig(learning_rate=1.0, warmup_steps=4, lr_schedule="constant", steps=6)
    assert rates_of(config, measured(GROWING)) == [0.25, 0.5, 0.75, 1, 1, 1]


def test_under_cosine_the_learning_rate_is_halved_half_way_and_ends_near_zero():
    rates = rates_of(TrainConfig(learning_rate=1.0, steps=100, lr_schedule="cosine"))
    assert rates[0] == 1.0
    assert rates[50] == pytest.approx(0.5)
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 1e-3


def test_a_margin_that_grows_keeps_the_rate_until_the_last_quarter():
    for validations in ([], measured(GROWING), [{"step": 400, "everyday_distance": 0.1}]):
        assert fall(SETTLE, validations) == Fall(300, 400)
    rates = rates_of(SETTLE)
    assert set(rates[:301]) == {1.0}
    assert rates[350] == pytest.approx(0.5)
    assert rates[300:] == sorted(rates[300:], reverse=True)
    assert 0 < rates[-1] < 1e-2


@pytest.mark.parametrize(
    ("margins", "settled"),
    [
        ([1.0, 1.019, 1.0], 75),  # two measurements in a row that are hardly larger
        ([1.0, 1.5, 1.4, 1.5], 100),
        ([1.0, 1.5, 1.4, 1.6, 1.6], 0),  # a single low one is chance
        ([0.0, 0.0, 0.0, 0.0], 0),  # nothing is learned yet
        ([-1.0, -2.0, -2.0], 0),
    ],
)
def test_the_rate_falls_for_a_third_of_the_steps_once_the_margin_has_settled(margins, settled):
    expected = Fall(settled, settled + -(-settled // 3)) if settled else Fall(300, 400)
    assert fall(SETTLE, measured(margins)) == expected
    if settled:
        assert fall(SETTLE, measured([*margins, *[2 * margins[-1]] * 3])) == expected  # begun is begun


def with_margins(monkeypatch, margins):
    """Replace the measured margins by these, one per step; the last one stays."""

    def measure(validation):
        number = min(validation.progress.step, len(margins))
        return {**dict.fromkeys(FIGURES, 0.0), "margin": margins[number - 1]}

    monkeypatch.setattr(Validation, "measure", measure)


SHORT = dataclasses.replace(SMALL, lr_schedule="settle", steps=40, validation=0.34, validate_every=1)


def test_a_run_ends_once_the_rate_has_fallen_and_resumes_to_the_same_bytes(monkeypatch, tmp_path):
    with_margins(monkeypatch, [0.1, 0.2, 0.4, 0.5])
    seen = []
    whole = run(SHORT, on_progress=lambda step, steps, _: seen.append((step, steps)))
    assert seen == [*((step, 40) for step in range(1, 6)), *((step, 8) for step in range(6, 9))]
    assert (whole.steps_done, whole.cancelled) == (8, False)
    for number, step in enumerate((3, 7)):  # before and after the fall began
        folder = tmp_path / str(number)
        with pytest.raises(Cancel):
            run(SHORT, run_dir=folder, on_progress=cancel_at(step))
        resumed = run(SHORT, run_dir=folder, resume=True)
        assert equal_layers(resumed, whole)
        assert [line["step"] for line in metrics_of(folder)] == list(range(1, 9))
