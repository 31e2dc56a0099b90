"""What all tests share: the mini model and a running ComfyUI, made when first asked for, once per session."""

import hashlib
import ipaddress
import shutil
import socket
import sys
import time
from pathlib import Path

import pytest
import torch

import dev

ROOT = Path(__file__).resolve().parents[1]
MINI_PAIRS = 8  # per category; enough to train a few steps, little to draw
OUTDATED_S = 86_400
HERE = ("", "localhost", "0.0.0.0", "::1", "::", socket.gethostname())


@pytest.fixture(scope="session")
def mini() -> dict[str, Path]:
    """The mini model as `build_mini` returns it, kept in `.host` for as long as the code that makes it."""
    return _built("mini")


@pytest.fixture(scope="session")
def large_mini() -> dict[str, Path]:
    """The mini model of the large world, with pairs of one category, kept likewise."""
    return _built("mini-large", world="large", categories=("shocking",))


@pytest.fixture(scope="session")
def flow_mini() -> dict[str, Path]:
    """The small world drawn by the mini flow, with pairs of one category, kept likewise."""
    return _built("mini-flow", world="flow", categories=("shocking",))


@pytest.fixture(scope="session")
def start_comfy(mini, tmp_path_factory):
    """Return a function that starts a ComfyUI with this pack and the mini model, to be used as a context."""
    from base_folder import place_mini, prepare_base  # late: they are beside the host's tests
    from comfy_server import ComfyServer

    def start():
        base = tmp_path_factory.mktemp("comfy")
        prepare_base(base)
        place_mini(base, mini)
        return ComfyServer(base)

    return start


@pytest.fixture(scope="session")
def comfy(start_comfy):
    """A running ComfyUI with this pack and the mini model; without a host it fails, and never skips."""
    with start_comfy() as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def denied():
    """Deny all connections but those within this machine, and name them at the end; see `test_network.py`.

    Returns:
        The addresses that were denied so far; the session fails if any is left in it.
    """
    addresses, family = [], (socket.AF_INET, socket.AF_INET6)

    def deny(host):
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name not in HERE and not name.startswith("127."):
            addresses.append(name)  # as well as raised, because a library may catch the error
            raise OSError(f"the tests deny the network, and something asked for {name}")

    def guarded(connect):
        def checked(self, address, *rest):
            if self.family in family:
                deny(address[0])
            return connect(self, address, *rest)

        return checked

    def resolving(resolve):
        def checked(host, *rest, **options):
            if not _is_number("" if host is None else host):  # a number is read, and nobody is asked
                deny("" if host is None else host)
            return resolve(host, *rest, **options)

        return checked

    with pytest.MonkeyPatch.context() as patched:
        for name in ("connect", "connect_ex"):
            patched.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
        for name in ("getaddrinfo", "gethostbyname"):
            patched.setattr(socket, name, resolving(getattr(socket, name)))
        yield addresses
    assert not addresses, f"tests reached for the network: {', '.join(addresses)}"


@pytest.fixture(autouse=True)
def no_event_files(monkeypatch):
    """Write no files for TensorBoard, so that it does not matter to a test whether that is installed."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


def pytest_collection_modifyitems(items):
    """Skip, with its reason shown, what needs a GPU on a machine that has none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU, this machine has none"))


def _built(name: str, **options) -> dict[str, Path]:
    from training.mini.build import build_mini  # late: most tests do not need it

    folder = ROOT / ".host" / f"{name}-{MINI_PAIRS}-{_maker_hash()}"
    _remove_outdated(folder.parent)
    folder.mkdir(parents=True, exist_ok=True)
    with dev.one_at_a_time(folder):  # another process of the same run may need it too
        return build_mini(folder, pairs_per_category=MINI_PAIRS, **options)  # goes on if it was cut off


def _remove_outdated(parent: Path) -> None:
    for folder in parent.glob("mini-*"):
        if time.time() - folder.stat().st_mtime > OUTDATED_S:  # a younger one may be in use
            shutil.rmtree(folder, ignore_errors=True)


def _maker_hash() -> str:
    # the files that decide what build_mini writes: its own, the shipped weights, and the format of experts
    library = ROOT / "training"
    own = (path for path in (library / "mini").rglob("*") if path.suffix in (".py", ".safetensors"))
    digest = hashlib.sha256()
    formats = ("experts/expert", "experts/lora_keys", "system/tensors")
    for path in [*sorted(own), *(library / f"{name}.py" for name in formats)]:
        digest.update(path.relative_to(library).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _is_number(host: str | bytes) -> bool:
    try:
        ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host)
    except ValueError:
        return False
    return True
