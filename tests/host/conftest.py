"""What tests in the host share: proofs in a process of the host, a browser, and a page in both renderings."""

import importlib.util
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from base_folder import PACK, PACK_NAME, link_folder
from browser import ComfyPage, find_browser, open_browser
from comfy_server import host_folder, server_environment
from virtual_environment import ROOT

SCREENSHOTS = ROOT / "test_output" / "screenshots"
RENDERINGS = {"classic": False, "nodes_2": True}


@pytest.fixture(scope="session")
def pack_parent(tmp_path_factory) -> Path:
    """A folder that holds this pack under its own name, for proofs to import it from."""
    parent = tmp_path_factory.mktemp("pack")
    link_folder(PACK, parent / PACK_NAME)
    return parent


@pytest.fixture(scope="session")
def proof() -> Callable[..., dict]:
    """Return a function that runs a script beside this file in a process of its own, on the real host.

    It takes the script's name, its arguments after the host's folder, and further variables of the
    environment; it returns the JSON of the last line that the script prints.
    """

    def run(name: str, *arguments: object, **environment: str) -> dict:
        command = [sys.executable, Path(__file__).with_name(name), host_folder(), *arguments]
        process = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, env=server_environment() | environment
        )
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="module")
def browser():
    """A headless browser; without one the test is skipped, and the summary has a warning.

    Each file has its own, because Playwright keeps an event loop running in the main thread until the browser
    is closed, and so that one that hangs does not reach the next file.
    """
    executable = find_browser()
    if executable is None:
        _skip("no Chrome or Chromium is installed (or CHROME_PATH names none)")
    if importlib.util.find_spec("playwright") is None:
        _skip("playwright is not installed; `python dev.py test` installs it")
    with open_browser(executable) as opened:
        yield opened


@pytest.fixture(scope="module", params=RENDERINGS)
def page(request, browser, comfy):
    """ComfyUI's page, once with nodes on a canvas and once as "Nodes 2.0"."""
    opened = ComfyPage(browser, comfy.url, new_rendering=RENDERINGS[request.param])
    yield opened
    opened.close()


@pytest.fixture
def screenshot(page):
    """Keep what the page shows below `test_output/`, which git ignores, for a person to look at."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    rendering = "nodes_2" if page.new_rendering else "classic"
    return lambda name: page.page.screenshot(path=SCREENSHOTS / f"{name}_{rendering}.png")


def _skip(reason: str) -> None:
    message = f"The tests in a browser did not run: {reason}."
    warnings.warn(message, stacklevel=2)
    pytest.skip(message)
