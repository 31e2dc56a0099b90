"""What a node shows while an expert is trained."""

import pytest

from training.trainer.plan import Plan


@pytest.fixture
def watch(pack):
    """Return a function that makes a watch over given clock times, and the list of what it shows."""
    module = pack("alignguard_nodes.shown.training_watch")

    def make(times):
        shown, clock = [], iter(times)
        return module.TrainingWatch(lambda *report: shown.append(report), clock=lambda: next(clock)), shown

    return make


def four_steps(watch, held_out=None) -> list:
    """Return what is shown of 4 steps that take up to 2 seconds."""
    made, shown = watch([0.0, 0.4, 2.0, 2.4, 2.8])  # when the watch is made, and after each step
    for step in range(1, 5):
        figures = {"loss": 1 / step, "implicit_accuracy": 0.5}
        made(step, 4, figures | (held_out or {} if step == 2 else {}))
    return shown


def test_training_is_shown_once_a_second_and_at_its_end_with_the_time_left(watch):
    one, two, three, four = four_steps(watch)
    assert one == (1, 4)
    assert two[3] == "step 2 of 4, loss 0.5, 2.0 s left"
    assert three == (3, 4)
    assert four[3] == "step 4 of 4, loss 0.25, 0.0 s left"
    assert two[2].size == four[2].size == (512, 256)


def test_the_plan_is_shown_before_the_first_step_and_the_time_is_measured_from_then_on(watch):
    made, shown = watch([0.0, 60.0, 62.0])
    made.planned(Plan(2, "none", expected_s=8.0, timed="4 rows took 1.0 s"))
    made(1, 4, {"loss": 1.0, "implicit_accuracy": 0.5})
    assert shown[0][3].startswith("plan: 2 pairs at once, checkpointing none; ")
    assert "about 8.0 s expected (4 rows took 1.0 s)" in shown[0][3]
    assert shown[1][3] == "step 1 of 4, loss 1, 6.0 s left"


def test_the_accuracy_on_held_out_pairs_is_in_the_live_image(watch):
    plain, held_out = four_steps(watch), four_steps(watch, {"validation_implicit_accuracy": 1.0})
    assert plain[3][2].tobytes() != held_out[3][2].tobytes()
