"""Running graphs from ComfyUI's page: they end green, training can be watched, errors are shown."""

import re

import pytest

from api_graphs import SHORT
from browser import GRAPHS, overlapping
from comfy_server import wait_for

pytestmark = pytest.mark.host

RUN_IN_SECONDS = ("Load and apply a safety expert", "Extract an expert from a tuned model")
TRAINING = "Train a safety expert"
TRAIN = "AlignGuardTrainSafetyDPO"
WATCHED = """(type) => {
    const node = app.graph.nodes.find((node) => node.type === type)
    const text = node.widgets.find((widget) => widget.name === "$$node-text-preview")?.value
    const element = document.querySelector(`[data-node-id="${node.id}"]`)
    return text && (node.imgs?.length || element?.querySelector("img")) ? text : null
}"""
FAILED = "() => Object.keys(app.lastNodeErrors ?? {}).map((id) => app.graph.getNodeById(id).type)"


def opened(page, name: str, **train) -> None:
    """Open a shipped graph with few steps, set in its widgets."""
    page.load(GRAPHS[name], name)
    page.set_widgets({**SHORT, TRAIN: {**SHORT[TRAIN], **train}})


@pytest.mark.parametrize("name", RUN_IN_SECONDS)
def test_a_graph_ends_green_and_its_pictures_cover_no_node(page, name, screenshot):
    opened(page, name)
    page.queue()
    assert page.ending()["kind"] == "execution_success"
    page.wait_until_drawn()
    page.fit()
    screenshot(f"{name}_run")
    assert overlapping(page.boxes()) == []


def test_training_shows_its_curve_and_the_time_left_and_ends_green(page, screenshot):
    opened(page, TRAINING, steps=6, seed=40 + page.new_rendering, filename_prefix="seen")
    page.queue()
    text = page.page.wait_for_function(WATCHED, arg=TRAIN).json_value()
    assert re.search(r"step \d of 6, loss \S+, \S+ \S+ left", text)
    assert page.ending()["kind"] == "execution_success"
    page.wait_until_drawn()
    page.fit()
    screenshot(f"{TRAINING}_run")
    assert overlapping(page.boxes()) == []


def test_cancel_stops_a_training(page):
    endless = {"steps": 5000, "lr_schedule": "constant"}
    opened(page, TRAINING, **endless, seed=50 + page.new_rendering, filename_prefix="stopped")
    page.queue()
    page.page.wait_for_function(WATCHED, arg=TRAIN)
    page.page.get_by_role("button", name="Cancel current run").click()
    ending = page.ending()
    assert (ending["kind"], ending["node_type"]) == ("execution_interrupted", TRAIN)


def test_a_wrong_input_shows_its_sentence_on_its_node(page, comfy, screenshot):
    opened(page, TRAINING, patience=3, validation=0.0)
    before = comfy.queue()
    page.queue()
    dialog = page.page.get_by_role("dialog")
    dialog.get_by_text("patience needs held-out pairs").first.wait_for()
    screenshot("wrong_input")
    assert page.page.evaluate(FAILED) == [TRAIN]
    assert comfy.queue() == before
    page.page.keyboard.press("Escape")
    wait_for(lambda: not dialog.is_visible())
