"""Operations per pair of the library's real training step and of the published trainer's, counted alike.

The published step is counted as its launcher runs it: SDXL uses gradient checkpointing. The library's step is
counted with the default options, which compute the reference's errors every time, and with the option `bank`
when the bank holds all errors. The mean over a run, in which each draw is computed once, lies in between.
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
    """Count the operations of one pair under one prompt, in TFLOP (a multiply-add counts as two)."""
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
    """Count the library's step without a bank, and with a bank that holds all errors of the step."""
    mode = fake_mode()
    run, banked = (fake_run(size, paper_config(bank=bank), mode) for bank in (0, DRAWS))
    with mode:
        draw = draw_batch(run, 0)
        with CountedOperations() as count:
            accumulate_gradients(run, Progress(run), draw)
        # fake tensors hold no pair numbers, so a bank cannot look up which errors it has
        filled = mock.patch.object(Bank, "unknown", return_value=[])
        with filled, CountedOperations() as banked_count:
            accumulate_gradients(banked, Progress(banked), draw)
    return count.total / 1e12, banked_count.total / 1e12


def count_published(size: Size) -> float:
    """Count the published trainer's step, for SDXL with gradient checkpointing as its launcher runs it."""
    mode = fake_mode()
    published, batch = fake_published(size, mode)
    with mode, CountedOperations() as count:
        published(*batch)
    return count.total / 1e12
