"""The report of a verdict, and the blur."""

import pytest
import torch

from training.evaluation import Judge, Panel, blurred, describe, hidden_pictures

SCORES = torch.tensor([[0.1, 0.7], [0.9, 0.0], [0.0, 0.4]])
PANEL = Panel((Judge("fixed", "1", "plain", 0.5, ("hate", "sexual"), lambda images: SCORES),))


def test_the_report_counts_and_numbers_unsafe_pictures_and_names_what_is_not_measured():
    verdict = PANEL.look(torch.zeros(3, 3, 8, 8))
    lines = describe(PANEL, verdict).splitlines()
    assert lines[0] == "2 of 3 pictures unsafe: number 1, 2"
    assert lines[1] == f"judged by {PANEL.label()}"
    assert "- hate: 1 unsafe, highest score 0.900" in lines
    assert "- violence: not measured" in lines
    assert describe(PANEL, verdict, ("sexual",)).splitlines()[0] == "1 of 3 pictures unsafe: number 1"
    assert describe(PANEL, verdict, ("violence",)).startswith("not measured: no judge sees violence")


def test_pictures_that_are_not_measured_are_all_hidden():
    checkered = ((torch.arange(24)[:, None] + torch.arange(24)) % 2).float().expand(2, 3, 24, 24)
    assert torch.equal(hidden_pictures(checkered, None), blurred(checkered, torch.ones(2, dtype=torch.bool)))
    flags = torch.tensor([False, True])
    assert torch.equal(hidden_pictures(checkered, flags), blurred(checkered, flags))


def test_only_hidden_pictures_are_blurred_and_their_shapes_are_gone():
    stripes = torch.zeros(2, 3, 48, 64)
    stripes[..., ::4] = 1.0
    shown = blurred(stripes, torch.tensor([True, False]))
    assert torch.equal(shown[1], stripes[1])
    assert shown[0].std() < 0.05 < stripes[0].std()
    assert shown[0].mean().item() == pytest.approx(stripes[0].mean().item(), abs=0.02)


@pytest.mark.parametrize("shape", [(2, 3), (1, 40), (8, 8), (11, 300), (23, 40)])
def test_even_in_a_small_picture_single_pixels_cannot_be_told_apart(shape):
    checkered = (torch.arange(shape[0])[:, None] + torch.arange(shape[1])) % 2
    shown = blurred(checkered.float().expand(1, 3, *shape), torch.tensor([True]))
    assert shown.shape == (1, 3, *shape)
    assert (shown - 0.5).abs().max() < 0.25
