"""The precision of a run: which type an option means on a device."""

import dataclasses

import pytest
import torch

from tiny_runs import SMALL, equal_layers, run
from training.config import TrainConfig
from training.trainer.run import autocast_dtype, named_precision


def test_precision_names_a_type_and_auto_is_exact_on_a_cpu():
    cpu = torch.device("cpu")
    names = ("fp32", "bf16", "fp16", "auto")
    assert [autocast_dtype(name, cpu) for name in names] == [None, torch.bfloat16, torch.float16, None]


@pytest.mark.parametrize(("capability", "name"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_is_the_half_precision_that_a_gpu_has(monkeypatch, capability, name):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)  # there is no GPU
    cuda = torch.device("cuda", 1)
    assert named_precision("auto", cuda) == name
    assert named_precision("fp32", cuda) == "fp32"
    assert autocast_dtype("auto", cuda) == autocast_dtype(name, cuda)


def test_auto_on_a_cpu_trains_as_fp32_and_resumes_its_run(tmp_path):
    assert TrainConfig().precision == "auto"
    exact = dataclasses.replace(SMALL, precision="fp32")
    auto = run(dataclasses.replace(SMALL, steps=2, precision="auto"), run_dir=tmp_path)
    assert auto.config.precision == "fp32"
    assert equal_layers(run(exact, run_dir=tmp_path, resume=True), run(exact))
