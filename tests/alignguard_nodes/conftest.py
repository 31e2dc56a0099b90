"""The modules of the nodes without a host, for tests of what they do with names, figures and images."""

import importlib
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Output(SimpleNamespace):
    """What a node returns: the values of its outputs, and what it shows."""

    def __init__(self, *values, ui):
        super().__init__(values=values, ui=ui)


@pytest.fixture
def pack(monkeypatch):
    """Return the importer of the pack's modules, without running the `__init__.py` that needs the host.

    The classes that the host's API gives nodes are stand-ins. Each test has modules of its own.
    """
    for name, path in (("pack", ROOT), ("pack.alignguard_nodes", ROOT / "alignguard_nodes")):
        package = types.ModuleType(name)
        package.__path__ = [str(path)]
        monkeypatch.setitem(sys.modules, name, package)
    io = MagicMock(
        ComfyNode=type("ComfyNode", (), {"hidden": SimpleNamespace(unique_id="7")}), NodeOutput=Output
    )
    api = SimpleNamespace(io=io, ui=MagicMock())
    api.ui.PreviewText = lambda text: SimpleNamespace(as_dict=lambda: {"text": (text,)})
    api.ui.PreviewImage = lambda image: SimpleNamespace(as_dict=lambda: {"images": [image]})
    monkeypatch.setitem(sys.modules, "comfy_api", SimpleNamespace(latest=api))
    monkeypatch.setitem(sys.modules, "comfy_api.latest", api)
    yield lambda name: importlib.import_module(f"pack.{name}")
    for name in [name for name in sys.modules if name.startswith("pack.")]:
        del sys.modules[name]
