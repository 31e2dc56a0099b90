"""The shipped graphs name existing nodes and inputs, agree with their API prompts, and use every node.

The schemas come from `tests/alignguard_nodes/node_schemas.json`; `tests/host/record_schemas.py` records them.
"""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCHEMAS = json.loads((ROOT / "tests" / "alignguard_nodes" / "node_schemas.json").read_text(encoding="utf-8"))
NAMES = sorted(file.stem for file in (ROOT / "workflows").glob("*.json"))
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
FRONTEND_ONLY = ("MarkdownNote",)
CONTROLLED = {"KSampler": "seed"}  # the frontend adds the widget "control after generate" after these


def graph(name: str) -> dict:
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


def prompt(name: str) -> dict:
    file = ROOT / "workflows" / "api" / f"{graph(name)['extra']['api']}.json"
    return json.loads(file.read_text(encoding="utf-8"))


def inputs_of(class_type: str) -> dict[str, str]:
    return SCHEMAS[class_type]["required"] | SCHEMAS[class_type]["optional"]


def as_prompt(graph: dict) -> dict:
    """Convert a UI graph into an API prompt as the frontend does."""
    sources = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    nodes = [node for node in graph["nodes"] if node["type"] not in FRONTEND_ONLY]
    return {
        str(node["id"]): {"class_type": node["type"], "inputs": widgets_of(node) | links_of(node, sources)}
        for node in nodes
    }


def links_of(node: dict, sources: dict) -> dict:
    return {slot["name"]: sources[slot["link"]] for slot in node["inputs"] if slot["link"] is not None}


def widgets_of(node: dict) -> dict:
    values = iter(node["widgets_values"])
    widgets = {}
    for name in (name for name, kind in inputs_of(node["type"]).items() if kind in WIDGETS):
        widgets[name] = next(values)
        if CONTROLLED.get(node["type"]) == name:
            assert next(values) in ("fixed", "increment", "decrement", "randomize")
    assert list(values) == []
    return widgets


def test_no_other_folder_is_taken_for_the_templates():
    # ComfyUI serves the first of these that a pack has, and the panel then finds no graph in it
    names = ("example_workflows", "example", "examples", "workflow", "workflows")
    assert [name for name in names if (ROOT / name).exists()] == ["workflows"]


def test_graphs_and_api_prompts_come_in_pairs():
    prompts = sorted(file.stem for file in (ROOT / "workflows" / "api").glob("*.json"))
    assert sorted(graph(name)["extra"]["api"] for name in NAMES) == prompts
    assert all(name.startswith("alignguard_") for name in prompts)


@pytest.mark.parametrize("name", NAMES)
def test_the_file_name_of_a_graph_is_a_title_because_the_panel_of_templates_shows_nothing_else(name):
    assert re.fullmatch(r"[A-Z][a-z]+( [a-z]+)+", name)


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_names_existing_nodes_and_inputs_and_sets_every_required_input(name):
    for node in prompt(name).values():
        assert node["inputs"].keys() <= inputs_of(node["class_type"]).keys()
        assert SCHEMAS[node["class_type"]]["required"].keys() <= node["inputs"].keys()


@pytest.mark.parametrize("name", NAMES)
def test_every_link_joins_an_output_and_an_input_of_the_same_type(name):
    nodes = prompt(name)
    for node in nodes.values():
        for key, value in node["inputs"].items():
            if isinstance(value, list):
                outputs = SCHEMAS[nodes[value[0]]["class_type"]]["outputs"]
                accepted = inputs_of(node["class_type"])[key].split(",")
                assert outputs[value[1]][1] in accepted or accepted == ["*"]


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_equals_its_prompt(name):
    from_graph, api = as_prompt(graph(name)), prompt(name)
    assert from_graph.keys() == api.keys()
    for key, node in api.items():
        assert from_graph[key]["class_type"] == node["class_type"]
        # inputs missing from the prompt have their default in the graph
        assert {k: v for k, v in from_graph[key]["inputs"].items() if k in node["inputs"]} == node["inputs"]
        left_out = from_graph[key]["inputs"].keys() - node["inputs"].keys()
        assert left_out <= SCHEMAS[node["class_type"]]["optional"].keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_links_of_a_graph_are_consistent_at_both_ends(name):
    nodes = {node["id"]: node for node in graph(name)["nodes"]}
    for number, source, out, target, into, kind in graph(name)["links"]:
        assert number in nodes[source]["outputs"][out]["links"]
        assert nodes[source]["outputs"][out]["type"] == kind
        assert nodes[target]["inputs"][into]["link"] == number


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_is_explained_and_its_nodes_do_not_overlap(name):
    nodes = graph(name)["nodes"]
    assert sum(node["type"] == "MarkdownNote" for node in nodes) == 1
    boxes = [(*node["pos"], *node["size"]) for node in nodes]
    for i, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[i + 1 :]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


def test_every_node_of_the_pack_occurs_in_a_graph():
    used = {node["type"] for name in NAMES for node in graph(name)["nodes"]}
    assert {name for name in SCHEMAS if name.startswith("AlignGuard")} <= used


def test_every_resolution_is_that_of_the_mini_model():
    for name in NAMES:
        for node in prompt(name).values():
            assert node["inputs"].get("resolution", 64) == 64


@pytest.mark.parametrize("name", NAMES)
def test_every_graph_has_a_thumbnail(name):
    assert (ROOT / "workflows" / f"{name}.jpg").stat().st_size > 0


BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))


@pytest.mark.parametrize("file", BLUEPRINTS, ids=lambda file: file.stem)
def test_a_blueprint_is_one_node_that_has_its_title_and_only_known_nodes_inside(file):
    blueprint = json.loads(file.read_text(encoding="utf-8"))
    (node,), (subgraph,) = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    assert (node["type"], node["title"], subgraph["name"]) == (subgraph["id"], file.stem, file.stem)
    assert [slot["name"] for slot in node["inputs"]] == [slot["name"] for slot in subgraph["inputs"]]
    assert len(node["widgets_values"]) == len(subgraph["inputs"])
    inside = {entry["id"]: entry for entry in subgraph["nodes"]}
    for entry in inside.values():
        widgets_of(entry)  # as many values as widgets
        names = [slot["name"] for slot in entry["inputs"]]
        assert set(names) <= inputs_of(entry["type"]).keys()
    for link in subgraph["links"]:
        if link["target_id"] in inside:
            slot = inside[link["target_id"]]["inputs"][link["target_slot"]]
            assert (slot["link"], slot["type"]) == (link["id"], link["type"])
        if link["origin_id"] in inside:
            assert link["id"] in inside[link["origin_id"]]["outputs"][link["origin_slot"]]["links"]
