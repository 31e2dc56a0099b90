"""Several processes train the expert that one process trains, and only the first of them writes."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from processes_of_tests import forking_context, resume_in_own_folder, together, wait_longer_than_the_group
from tiny import tiny_data, tiny_unet
from tiny_runs import SMALL
from training.experts.expert import load_expert
from training.models.noise import NoiseSchedule
from training.system.processes import ALONE, Processes, launched_processes
from training.trainer.loop import train
from training.trainer.run_folder import Storage

ROOT = Path(__file__).resolve().parents[2]
CONFIG = dataclasses.replace(SMALL, batch_size=4, learning_rate=1e-3, steps=4, bank=1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def in_two(target, *words):
    """Run a function in two processes until both have ended well."""
    context, port = forking_context(), free_port()
    processes = [context.Process(target=target, args=(number, 2, port, *words)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]


@pytest.mark.slow
def test_two_processes_give_the_losses_and_the_expert_of_one(tmp_path):
    in_two(together, CONFIG, tmp_path)
    alone = go()
    ends = [load_file(tmp_path / f"{number}.safetensors") for number in range(2)]
    for layers in ends:
        assert layers["losses"].tolist() == pytest.approx(alone.losses, rel=1e-4)  # fp32 sums of parts
        for name, layer in alone.layers.items():
            torch.testing.assert_close(layers[f"{name}.up"], layer.up, rtol=0, atol=1e-5)
            torch.testing.assert_close(layers[f"{name}.down"], layer.down, rtol=0, atol=1e-5)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    # the second process was given the same folder, and the lock of the first would have stopped it
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 4


TORCHRUN = ("torch.distributed.run", "--nproc-per-node=2", "--master-port")
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1")
ACCELERATE += ("--mixed_precision=no", "--dynamo_backend=no", "--main_process_port")  # else it asks or warns


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate launch"])
def test_the_command_runs_in_two_processes_that_a_launcher_starts(tmp_path, mini, launcher):
    words = [*("-m", "training", "train", "--base", mini["checkpoint"], "--pairs", mini["pairs"] / "hate")]
    words += [*("--resolution", 64, "--device", "cpu", "--max-pairs", 4, "--steps", 3, "--batch-size", 4)]
    words += [*("--rank", 2, "--beta", 500, "--row-dropout", 0, "--bank", 1, "--validation", 0.25)]
    experts = []
    for name, start in (("one", []), ("two", ["-m", *launcher, free_port()])):
        out = tmp_path / f"{name}.safetensors"
        command = [sys.executable, *start, *words, "--out", out]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        experts.append(load_expert(out))
        lines = (tmp_path / f"{name}_run" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]  # only the first process writes
    one, two = experts
    for name, layer in one.layers.items():
        torch.testing.assert_close(two.layers[name].delta(), layer.delta(), rtol=0, atol=1e-5)
    figures = [json.loads(expert.metadata["alignguard.validation"]) for expert in experts]
    assert figures[1] == pytest.approx(figures[0], rel=1e-3, abs=1e-7)


@pytest.mark.slow
def test_the_others_wait_for_the_first_for_longer_than_their_group_would(tmp_path):
    in_two(wait_longer_than_the_group, 3, tmp_path)
    expected = [[f"{turn} from 0", f"{turn} from 1"] for turn in range(3)]
    for number in range(2):
        assert json.loads((tmp_path / f"{number}.json").read_text()) == expected


@pytest.mark.slow
def test_processes_on_disks_of_their_own_are_refused_on_resume(tmp_path):
    go(dataclasses.replace(CONFIG, steps=2), run_dir=tmp_path / "0")
    in_two(resume_in_own_folder, CONFIG, tmp_path)
    for number in range(2):
        text = (tmp_path / f"{number}.txt").read_text()
        assert "process 1 found no state in " in text
        assert "after step 2. Use a run folder on a disk that all processes see" in text


def go(config=CONFIG, *, processes=ALONE, **stored):
    schedule, storage = NoiseSchedule.scaled_linear(), Storage(**stored)
    return train(tiny_unet(), tiny_data(), schedule, config, storage=storage, processes=processes)


def one_of_two(number, messages):
    """Return one of two processes that run in turn: the second receives the messages of the first."""

    class OneOfTwo(Processes):
        def exchange(self, message=""):
            if self.is_first:
                messages.append(message)
                return [message, message]
            return [messages.pop(0), message]

        def add_up(self, tensors):
            pass

    return OneOfTwo(2, number)


def test_processes_that_agree_go_on(tmp_path):
    messages = []
    go(run_dir=tmp_path, processes=one_of_two(0, messages))
    assert len(go(run_dir=tmp_path, processes=one_of_two(1, messages)).losses) == CONFIG.steps


@pytest.mark.parametrize("of_second", [{"learning_rate": 1e-2}, {"validation": 0.5}])
def test_processes_with_other_options_or_pairs_are_refused(tmp_path, of_second):
    messages = []
    go(run_dir=tmp_path, processes=one_of_two(0, messages))
    with pytest.raises(ValueError, match="process 1 has other options, pairs or another base model"):
        go(dataclasses.replace(CONFIG, **of_second), run_dir=tmp_path, processes=one_of_two(1, messages))


def test_processes_that_found_states_of_two_runs_at_one_step_are_refused(tmp_path):
    messages = []
    for number, batch_size in enumerate([4, 2]):  # different runs in the folders of the two processes
        go(dataclasses.replace(CONFIG, steps=2, batch_size=batch_size), run_dir=tmp_path / str(number))
    go(run_dir=tmp_path / "0", resume=True, processes=one_of_two(0, messages))
    with pytest.raises(ValueError, match=r"process 1 found the state .* after step 2 in .*1, process 0 fo"):
        go(run_dir=tmp_path / "1", resume=True, processes=one_of_two(1, messages))


def test_all_processes_train_with_the_beta_that_the_first_measured(monkeypatch):
    messages, betas = [], []
    for number, beta in enumerate([400.0, 410.0]):
        monkeypatch.setattr("training.trainer.start.measured_beta", lambda run, beta=beta: beta)
        result = go(dataclasses.replace(CONFIG, beta=0.0, steps=1), processes=one_of_two(number, messages))
        betas.append((result.config.beta, result.config.anchor_weight))
    assert betas == [(400.0, 80.0)] * 2


def test_a_single_process_needs_no_group_and_adds_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with launched_processes() as processes:
        assert processes == ALONE
    one = [torch.ones(2)]
    processes.add_up(one)
    assert torch.equal(one[0], torch.ones(2))
    assert processes.exchange("a word") == ["a word"]
    assert "MASTER_ADDR" not in os.environ


def test_more_processes_than_pairs_in_a_batch_are_refused():
    with pytest.raises(ValueError, match="at least the number of processes, got 4 for 5"):
        go(processes=Processes(5, 0))
