"""Costs at scale: sums of counted rows, and jobs that are spread over machines."""

import functools

import pytest

import at_scale
from at_scale import Operations, adapter_bytes, count_operations, entry_bytes, expert_operations, longest_load
from flops import count_ours
from full_size import CLIP_L, Size
from table import as_table
from training.config import TrainConfig
from training.models.native_unet import Layout

TINY = Size("sd15", Layout((32, 64), (True, False), 1, 4, 4), 64, ({**CLIP_L, "num_hidden_layers": 1},))


@functools.cache
def counted():
    return count_operations(TINY)


def test_two_rows_with_gradients_and_two_without_are_a_pair_of_the_published_objective():
    ranks = TrainConfig().rank / 4  # `flops` counts the paper's rank; the adapter is a small part of both
    pair = 2 * (counted().forward + counted().with_backward)
    assert count_ours(TINY)[0] == pytest.approx(pair, rel=0.05 * ranks)
    assert counted().forward < counted().with_backward < 3 * counted().forward


def test_an_expert_costs_its_steps_times_its_rows():
    without, only = Operations(0, 1, 0, 0), Operations(1, 0, 0, 0)
    steps = TrainConfig().steps * TrainConfig().batch_size
    assert expert_operations(without) % steps == 0
    assert expert_operations(only) > expert_operations(without) / 4  # the base model runs too


def test_the_cache_holds_a_latent_and_an_embedding_in_fp32():
    assert entry_bytes(TINY) == (4 * 4 * 8 * 8, 4 * 77 * 768)
    assert adapter_bytes(TINY) % 4 == 0


@pytest.mark.parametrize(
    ("jobs", "count", "hours"), [([1, 2, 3], 1, 6), ([1, 2, 3], 2, 3), ([1, 2, 3], 64, 3)]
)
def test_the_last_machine_is_done_when_its_jobs_are(jobs, count, hours):
    assert longest_load(jobs, count) == hours


def test_there_is_a_row_for_each_family_and_for_each_number_of_gpus(monkeypatch):
    monkeypatch.setattr(at_scale, "FAMILIES_AT_SCALE", {"tiny": TINY})
    rows = at_scale.measure()
    assert list(rows) == ["tiny", "1 GPUs", "8 GPUs", "64 GPUs"]
    hours = [rows[f"{count} GPUs"]["all trainings, hours"] for count in at_scale.GPUS]
    one = rows["tiny"]["an expert, hours"]
    assert hours == pytest.approx([28 * one, 4 * one, one])  # the last of 8 machines takes four of 28
    assert "all experts, hours" in as_table(rows)
