"""The modules of the nodes without a host, for tests of what they do with names, figures and images."""

import importlib
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

ROOT = Path(__file__).resolve().parents[2]
NODES = ROOT / "alignguard_nodes"


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


@pytest.fixture
def node_class(pack, monkeypatch, tmp_path):
    """Return a function that returns the class of a node by the name of its file.

    Of the border to the host only `host.schema` is real; folders are in `tmp_path`.
    """
    host = types.ModuleType("pack.alignguard_nodes.host")
    host.__path__ = [str(NODES / "host")]
    host.__getattr__ = lambda name: MagicMock()
    host.input_folder = lambda: tmp_path / "input"
    host.output_folder = lambda: tmp_path / "output"
    host.private_folder = lambda name: tmp_path / "user" / name
    monkeypatch.setitem(sys.modules, host.__name__, host)
    pack("alignguard_nodes").host = host
    schema = pack("alignguard_nodes.host.schema")
    host.node_schema, host.more_sockets = schema.node_schema, schema.more_sockets

    def of(name):
        values = vars(pack(f"alignguard_nodes.{name}")).values()
        (cls,) = (value for value in values if "define_schema" in getattr(value, "__dict__", {}))
        return cls

    return of
