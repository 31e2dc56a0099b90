"""The curve of a training run."""

import pytest
from PIL import ImageColor


@pytest.fixture
def loss_curve(pack):
    return pack("alignguard_nodes.shown.loss_curve")


def colours_of(image) -> set:
    return {colour for _, colour in image.getcolors(maxcolors=100_000)}


@pytest.mark.parametrize("losses", [[0.7], [0.7, 0.7], [3.0, 1.0, 0.5, 0.2], [0.0, 0.0], [-1.0, 2.0]])
def test_a_loss_curve_is_drawn_for_any_run(loss_curve, losses):
    image = loss_curve.draw_loss_curve(losses)
    assert image.size == (512, 256)
    assert len(colours_of(image)) > 2


def test_accuracies_are_drawn_beside_the_loss(loss_curve):
    draw = loss_curve.draw_loss_curve
    assert draw([0.7, 0.5], [0.5, 1.0]).tobytes() != draw([0.7, 0.5]).tobytes()


def test_held_out_accuracies_stand_at_the_steps_they_were_measured_after(loss_curve):
    held_out = ImageColor.getrgb(loss_curve.HELD)
    assert held_out not in colours_of(loss_curve.draw_loss_curve([0.7] * 5, [0.5] * 5))
    image = loss_curve.draw_loss_curve([0.7] * 5, [0.5] * 5, {2: 0.0, 4: 1.0})
    plot = image.crop((32, 12, 395, 224))  # without the words
    places = [(x, y) for x in range(363) for y in range(212) if plot.getpixel((x, y)) == held_out]
    # from the second step, at 0, to the fourth, at 1
    assert min(places)[0] == pytest.approx(464 / 4, abs=2)
    assert max(places)[0] == pytest.approx(3 * 464 / 4, abs=2)
    assert min(places)[1] > 200
