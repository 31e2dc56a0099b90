"""The errors of preference pairs: split into the four that a loss reads."""

import pytest
import torch

from training.losses.errors import pair_errors


def test_errors_are_split_into_winners_and_losers_of_policy_and_reference():
    errors = pair_errors(torch.tensor([1.0, 2, 3, 4]), torch.tensor([5.0, 6, 7, 8]))
    assert errors.winner.tolist() == [1, 2]
    assert errors.loser.tolist() == [3, 4]
    assert errors.ref_winner.tolist() == [5, 6]
    assert errors.ref_loser.tolist() == [7, 8]


@pytest.mark.parametrize(("num_errors", "num_ref_errors"), [(3, 3), (4, 2)])
def test_unequal_numbers_of_errors_are_refused(num_errors, num_ref_errors):
    with pytest.raises(ValueError, match=f"got {num_errors} and {num_ref_errors} errors"):
        pair_errors(torch.zeros(num_errors), torch.zeros(num_ref_errors))
