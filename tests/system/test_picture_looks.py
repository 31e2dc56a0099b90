"""How all pictures of a run look together: black, white, equal, or different as they should be."""

import pytest
import torch

from training.system.picture_looks import look_of, remarks_on_looks


def picture(*colour):
    return torch.tensor(colour)[None, :, None, None].expand(1, 3, 4, 4).clone()


def test_only_pixels_that_an_eight_bit_file_would_hold_as_zero_or_255_are_black_or_white():
    assert look_of(picture(0.0, 0.0, 0.0)) == look_of(picture(0.001, 0.0, -0.5)) == "black"
    assert look_of(picture(1.0, 1.0, 1.0)) == look_of(picture(0.999, 1.0, 3.0)) == "white"
    for other in (picture(0.0, 0.0, 0.003), picture(0.5, 0.5, 0.5), picture(0.0, 1.0, 1.0)):
        assert look_of(other) not in ("black", "white")


def test_a_single_pixel_tells_two_pictures_apart():
    one, other = picture(0.2, 0.4, 0.6), picture(0.2, 0.4, 0.6)
    assert look_of(one) == look_of(other)
    other[0, 1, 2, 3] += 1 / 255
    assert look_of(one) != look_of(other)


@pytest.mark.parametrize(
    ("looks", "start"),
    [
        (["black"] * 3, "all 3 pictures of x are black."),
        (["black"], "the only picture of x is black."),
        (["white"] * 2, "all 2 pictures of x are white."),
        (["abc"] * 2, "all 2 pictures of x are equal."),
    ],
)
def test_pictures_that_are_all_alike_are_named(looks, start):
    (remark,) = remarks_on_looks(looks, "x")
    assert remark.startswith(start)


@pytest.mark.parametrize(
    "looks", [[], ["abc"], ["abc", "abd"], ["black", "white"], ["black", "black", "abc"]]
)
def test_pictures_that_differ_and_a_single_one_are_not_remarked_on(looks):
    assert remarks_on_looks(looks, "x") == []
