"""Running graphs from ComfyUI's page, in both renderings.

Whatever a test leaves in the queue is cancelled behind it.
"""

import pytest

from api_graphs import SHORT
from browser import GRAPHS, RUN_LIMIT_S
from comfy_server import wait_for

pytestmark = pytest.mark.host

TRAIN, TRAINING_NODE = "Train a safety expert", "AlignGuardTrainSafetyDPO"
RUN_IN_SECONDS = ("Load and apply a safety expert", "Extract an expert from a tuned model", TRAIN)
# What a node shows while it runs: a line of text, which is an element of the page, and a picture.
WATCHED = """(type) => {
    const node = app.graph.nodes.find((node) => node.type === type)
    const line = document.body.innerText.match(/^step \\d+ of \\d+, loss .* left$/m)
    return app.nodePreviewImages[node.id]?.length > 0 && line && line[0]
}"""
ERRORS = """() => Object.entries(app.lastNodeErrors ?? {}).map(([id, {errors}]) => ({
    type: app.graph.getNodeById(id).type, sentences: errors.map((error) => error.details),
}))"""


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


def test_training_shows_its_curve_and_the_time_left_and_stops_when_it_is_cancelled(page, comfy, screenshot):
    page.load(GRAPHS[TRAIN], TRAIN)
    page.set_widgets(SHORT | {TRAINING_NODE: {"steps": 60, "batch_size": 1, "seed": int(page.new_rendering)}})
    page.queue()
    line = page.wait_for(WATCHED, TRAINING_NODE, what="curve and time left", limit_s=RUN_LIMIT_S)
    screenshot("training")
    assert " of 60, " in line
    page.page.get_by_role("button", name="Cancel current run").click()
    ending = page.ending()
    assert (ending["kind"], ending["node_type"]) == ("execution_interrupted", TRAINING_NODE)
    wait_for(lambda: not any(comfy.queue().values()))


def test_a_wrong_input_is_explained_at_its_node_and_at_no_other(page, screenshot):
    page.load(GRAPHS[TRAIN], TRAIN)
    page.set_widgets(SHORT | {TRAINING_NODE: {"filename_prefix": "../elsewhere"}})
    page.queue()
    (wrong,) = page.wait_for(f"() => ({ERRORS})().length && ({ERRORS})()", what="an error at a node")
    screenshot("wrong_input")
    assert wrong["type"] == TRAINING_NODE
    assert all("filename_prefix must name a file inside" in sentence for sentence in wrong["sentences"])
