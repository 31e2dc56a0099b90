"""The shipped graphs as a person sees them: nothing overlaps, all is in its group, a note comes first.

Sizes are those the browser computes, in both renderings. A screenshot of each graph is kept.
"""

import pytest

from browser import GRAPHS, NOTE, named, overlapping

pytestmark = pytest.mark.host


@pytest.fixture(scope="module", params=GRAPHS)
def graph(request, page):
    """Open a shipped graph and return its name."""
    page.load(GRAPHS[request.param], request.param)
    return request.param


def holds(group: dict, node: dict) -> bool:
    (x, y, w, h), (x2, y2, w2, h2) = group["box"], node["box"]
    return x <= x2 and y <= y2 and x2 + w2 <= x + w and y2 + h2 <= y + h


def test_no_node_covers_another(page, graph):
    assert overlapping(page.boxes()) == []


def test_every_node_but_the_note_lies_in_exactly_one_group(page, graph):
    groups = page.groups()
    assert overlapping(groups) == []
    outside = [
        named(node)
        for node in page.boxes()
        if sum(holds(group, node) for group in groups) != (node["type"] != NOTE)
    ]
    assert outside == []


def test_the_note_that_says_what_to_do_is_in_sight_when_a_graph_opens(page, graph, screenshot):
    screenshot(f"{graph}_opened")
    (note,) = (node for node in page.boxes() if node["type"] == NOTE)
    assert holds({"box": page.visible_area()}, note), (page.visible_area(), named(note))
    page.fit()
    screenshot(graph)
