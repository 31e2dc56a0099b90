"""Running graphs from ComfyUI's page, in both renderings.

Whatever a test leaves in the queue is cancelled behind it.
"""

import pytest

from api_graphs import SHORT
from browser import GRAPHS
from comfy_server import wait_for

pytestmark = pytest.mark.host

RUN_IN_SECONDS = ("Load and apply a safety expert", "Extract an expert from a tuned model")


@pytest.fixture(autouse=True)
def idle(comfy):
    """Leave a server that runs nothing, also behind a test that failed during a run."""
    yield
    if any(comfy.queue().values()):
        comfy.interrupt()
        wait_for(lambda: not any(comfy.queue().values()))


@pytest.mark.parametrize("name", RUN_IN_SECONDS)
def test_a_graph_ends_green(page, name, screenshot):
    page.load(GRAPHS[name], name)
    page.set_widgets(SHORT)
    page.queue()
    assert page.ending()["kind"] == "execution_success"
    page.wait_until_drawn()
    page.fit()
    screenshot(f"{name}_run")
