"""Functions that tests run in other processes: a run to kill, and processes that train together."""

import json
import multiprocessing
import os
import time
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from torch import distributed

from tiny import tiny_data, tiny_unet
from training.config import TrainConfig
from training.models.noise import NoiseSchedule
from training.system.processes import launched_processes
from training.trainer.loop import train
from training.trainer.run_folder import Storage
from training.trainer.train_expert import Destination, Subject, train_expert

HERE = [str(Path(__file__).parents[1] / name) for name in ("tests", "", "benchmarks")]
CONFIG = TrainConfig(steps=24, batch_size=2, rank=2, learning_rate=1e-2, seed=3, save_every=1, bank=2)


def forking_context(module=__name__):
    """Return a context whose processes are forked from a process that has already imported a module.

    There is one such process for all contexts, so a module asked for later is imported by each process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    paths = [*HERE, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    with patch.dict(
        os.environ, {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
    ):  # it takes the folders only from the environment
        forkserver.ensure_running()
    return context


def train_in(folder, config=CONFIG):
    """Train an expert in a folder, or resume its training, and return the file."""
    torch.set_num_threads(1)
    expert, _ = train_expert(
        tiny_unet(),
        tiny_data(),
        NoiseSchedule.scaled_linear(),
        config,
        subject=Subject("violence", "sd15", "b" * 64),
        destination=Destination(folder / "x.safetensors", folder / "run", resume=True),
    )
    return folder / expert.name


@contextmanager
def launched_as(number, count, port):
    """Act as one of several processes that torchrun started."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": str(count)}
    with launched_processes() as processes:
        yield processes


def wait_longer_than_the_group(number, count, port, timeout_s, folder):
    """Keep the first process busy for longer than a group waits by default; write all messages sent."""
    original, timeout = distributed.init_process_group, timedelta(seconds=timeout_s)
    with patch.object(distributed, "init_process_group", partial(original, timeout=timeout)):
        with launched_as(number, count, port) as processes:
            with processes.first_goes_first():
                if processes.is_first:
                    time.sleep(1.5 * timeout_s)
                    (folder / "filled").touch()
                assert (folder / "filled").exists()
            messages = [processes.exchange(f"{turn} from {number}") for turn in range(3)]
    (folder / f"{number}.json").write_text(json.dumps(messages))


def resume_in_own_folder(number, count, port, config, folder):
    """Resume training as one of several processes with separate disks; write why it is refused."""
    with launched_as(number, count, port) as processes:
        storage, schedule = Storage(folder / str(number), resume=True), NoiseSchedule.scaled_linear()
        try:
            train(tiny_unet(), tiny_data(), schedule, config, storage=storage, processes=processes)
        except ValueError as error:
            (folder / f"{number}.txt").write_text(str(error))


def together(number, count, port, config, folder):
    """Train an expert as one of several processes and write the result."""
    with launched_as(number, count, port) as processes:
        result = train(
            tiny_unet(),
            tiny_data(),
            NoiseSchedule.scaled_linear(),
            config,
            storage=Storage(folder / "run"),
            processes=processes,
        )
    layers = {f"{name}.up": layer.up for name, layer in result.layers.items()}
    layers |= {f"{name}.down": layer.down for name, layer in result.layers.items()}
    losses = torch.tensor(result.losses, dtype=torch.float64)
    save_file(layers | {"losses": losses}, folder / f"{number}.safetensors")
