"""Several processes train the expert that one process trains, and only the first of them writes."""

import dataclasses
import os
import socket

import pytest
import torch
from processes_of_tests import forking_context, together
from safetensors.torch import load_file
from test_trainer import SMALL
from tiny import tiny_data, tiny_unet

from training.noise import NoiseSchedule
from training.processes import ALONE, Processes, launched_processes
from training.trainer import train

CONFIG = dataclasses.replace(SMALL, batch_size=4, learning_rate=1e-3, steps=4, bank=1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_processes_give_the_losses_and_the_expert_of_one(tmp_path):
    context = forking_context()
    port = free_port()
    processes = [
        context.Process(target=together, args=(number, 2, port, CONFIG, tmp_path)) for number in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]

    alone = train(tiny_unet(), tiny_data(), NoiseSchedule.scaled_linear(), CONFIG)
    ends = [load_file(tmp_path / f"{number}.safetensors") for number in range(2)]
    for layers in ends:
        assert layers["losses"].tolist() == pytest.approx(alone.losses, abs=1e-5)
        for name, layer in alone.layers.items():
            torch.testing.assert_close(layers[f"{name}.up"], layer.up, rtol=0, atol=1e-5)
            torch.testing.assert_close(layers[f"{name}.down"], layer.down, rtol=0, atol=1e-5)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    # the second process was given the same folder, and the lock of the first would have stopped it
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 4


def test_a_single_process_needs_no_group_and_adds_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with launched_processes() as processes:
        assert processes == ALONE
    one = [torch.ones(2)]
    processes.add_up(one)
    assert torch.equal(one[0], torch.ones(2))
    assert "MASTER_ADDR" not in os.environ


def test_more_processes_than_pairs_in_a_batch_are_refused():
    with pytest.raises(ValueError, match="at least the number of processes, got 4 for 5"):
        train(tiny_unet(), tiny_data(), NoiseSchedule.scaled_linear(), CONFIG, processes=Processes(5, 0))
