"""What the tests in a browser share: one browser, and a page in each of the two renderings of nodes."""

import importlib.util
import warnings

import pytest

from browser import ComfyPage, find_browser, open_browser
from virtual_environment import ROOT

SCREENSHOTS = ROOT / "test_output" / "screenshots"
RENDERINGS = {"classic": False, "nodes_2": True}


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
