"""torchvision can be imported beside a CPU build of torch, and torch is imported only when needed."""

import subprocess
import sys

import pytest

from virtual_environment import venv_python

pytestmark = pytest.mark.host  # needs the packages in .venv


def run_in_venv(code: str) -> str:
    python = venv_python() if venv_python().exists() else sys.executable
    return subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_torchvision_can_be_imported_and_its_transforms_work():
    code = (
        "import torch, torchvision.transforms as t; print(tuple(t.CenterCrop(2)(torch.ones(3, 4, 4)).shape))"
    )
    assert run_in_venv(code) == "(3, 2, 2)"


def test_starting_python_does_not_import_torch():
    assert run_in_venv("import sys; print('torch' in sys.modules)") == "False"
