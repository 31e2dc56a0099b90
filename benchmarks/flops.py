"""Operations per pair: the library's real training step against the published trainer's, counted alike.

The published step is counted as its launcher runs it: SDXL with gradient checkpointing. The library's step is
counted as it is by default, computing the reference's errors each time, and with the option `bank` once all
errors are in it. In between is the mean of a whole run, in which each draw is computed once.
"""

from unittest import mock

from full_size import (
    SIZES,
    Size,
    fake_mode,
    fake_run,
    paper_config,
)
from peers import fake_published
from training.trainer.bank import Bank
from training.trainer.batch import draw_batch
from training.trainer.needs import CountedOperations
from training.trainer.progress import Progress
from training.trainer.step import accumulate_gradients

DRAWS, EPOCHS = 8, 24  # 300 steps of 8 pairs, the defaults, are 24 epochs of 100 pairs


def measure() -> dict:
    """Count one pair under one prompt, in TFLOP (a multiplication and an addition are two)."""
    return {name: _compare(size) for name, size in SIZES.items()}


def _compare(size: Size) -> dict[str, float]:
    published, (ours, filled) = count_published(size), count_ours(size)
    over_a_run = filled + (ours - filled) * DRAWS / EPOCHS
    return {
        "published": published,
        "ours": ours,
        "ratio": ours / published,
        "bank filled": filled,
        "its ratio": filled / published,
        f"mean of {EPOCHS} epochs, bank of {DRAWS}": over_a_run,
        "ratio of the mean": over_a_run / published,
    }


def count_ours(size: Size) -> tuple[float, float]:
    """Count the library's step without a bank, and with one that has all errors of the step."""
    mode = fake_mode()
    run, banked = (fake_run(size, paper_config(bank=bank), mode) for bank in (0, DRAWS))
    with mode:
        draw = draw_batch(run, 0)
        with CountedOperations() as count:
            accumulate_gradients(run, Progress(run), draw)
        # tensors without memory have no numbers of pairs, so a bank cannot look up which of them it knows
        filled = mock.patch.object(Bank, "unknown", return_value=[])
        with filled, CountedOperations() as least:
            accumulate_gradients(banked, Progress(banked), draw)
    return count.total / 1e12, least.total / 1e12


def count_published(size: Size) -> float:
    """Count the published trainer's step; SDXL as its launcher runs it, with gradient checkpointing."""
    mode = fake_mode()
    published, batch = fake_published(size, mode)
    with mode, CountedOperations() as count:
        published(*batch)
    return count.total / 1e12
