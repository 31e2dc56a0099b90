"""Finding things in ComfyUI's page: templates in their panel, nodes in the search, help pages.

Titles are file names, because the panel shows nothing else for the templates of a pack.
"""

import pytest

from browser import GRAPHS, NOTE
from virtual_environment import ROOT

pytestmark = pytest.mark.host

HELP = ROOT / "alignguard_nodes" / "web" / "docs"
NODES = sorted(page.stem for page in HELP.glob("*.md"))
CATEGORY = "alignguard"
UNKNOWN = "() => app.graph.nodes.filter((n) => n.has_errors || !LiteGraph.registered_node_types[n.type])"
ADD_NODE = """(type) => {
    app.graph.clear()
    const node = LiteGraph.createNode(type)
    app.graph.add(node)
    app.canvas.selectNode(node)
    app.canvas.centerOnNode(node)
}"""

BLUEPRINT = "Safe text to image"
SAVE_IMAGE = """() => {
    const [blueprint] = app.graph.nodes, save = LiteGraph.createNode("SaveImage")
    app.graph.add(save)
    save.pos = [blueprint.pos[0] + blueprint.size[0] + 100, blueprint.pos[1]]
    blueprint.connect(0, save, 0)
}"""


@pytest.fixture
def panel(page):
    """Open the panel of templates at those of this pack."""
    page.page.get_by_role("button", name="Templates").first.click()
    dialog = page.page.get_by_role("dialog")
    dialog.get_by_text(CATEGORY, exact=True).click()
    return dialog


@pytest.mark.parametrize("name", GRAPHS)
def test_a_template_shows_title_and_picture_and_opens_without_a_missing_node(page, panel, name, screenshot):
    card = panel.get_by_test_id(f"template-workflow-{name}")
    card.scroll_into_view_if_needed()  # only cards in sight have their picture
    picture = card.locator("img").first
    picture.scroll_into_view_if_needed()
    screenshot("templates")
    assert card.get_by_text(name).first.is_visible()
    page.page.wait_for_function("(image) => image.naturalWidth > 0", arg=picture.element_handle())
    picture.click()
    panel.wait_for(state="hidden")
    count = len(GRAPHS[name]["nodes"])
    page.page.wait_for_function("(count) => app.graph.nodes.length === count", arg=count)
    page.wait_until_drawn()
    assert len(page.boxes()) == count
    assert page.page.evaluate(UNKNOWN) == []
    assert [node["type"] for node in page.boxes()].count(NOTE) == 1


@pytest.mark.parametrize("node", NODES)
def test_a_node_is_found_by_its_name_and_by_other_words(page, comfy, node):
    info = comfy.object_info(node)[node]
    aliases = info.get("search_aliases", [])  # ComfyUI 0.3.75 knows none and finds nodes by name only
    assert aliases or "search_aliases" not in info
    for words in (info["display_name"], *aliases[:1]):
        assert info["display_name"] in page.found(words), words


@pytest.mark.parametrize("node", NODES)
def test_the_help_page_of_a_node_opens_with_its_picture(page, node):
    text = (HELP / f"{node}.md").read_text(encoding="utf-8")
    heading = text.splitlines()[0].removeprefix("# ")
    page.page.evaluate(ADD_NODE, node)
    page.page.get_by_test_id("info-button").click()
    shown = page.page.locator(".node-help-content")
    shown.get_by_role("heading", name=heading, exact=True).first.wait_for()
    picture = shown.locator("img").first.element_handle()
    page.page.wait_for_function("(image) => image.naturalWidth > 0", arg=picture)


def test_the_blueprint_is_found_by_the_search_becomes_a_node_and_draws(page, screenshot):
    page.page.evaluate("() => app.graph.clear()")
    assert BLUEPRINT in page.found(BLUEPRINT, choose=True)
    page.page.wait_for_function("() => app.graph.nodes.length === 1")
    page.page.evaluate(SAVE_IMAGE)
    page.wait_until_drawn()
    screenshot("blueprint")
    page.queue()
    assert page.ending()["kind"] == "execution_success"
