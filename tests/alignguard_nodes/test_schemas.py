"""The schemas of all nodes, on a stand-in for the schema classes of an old host and of a new one.

The old one is ComfyUI 0.3.75, the new one has what came later: advanced widgets, search aliases, and sockets
that grow. `tests/host` reads the schemas of a real host.
"""

import dataclasses
import inspect
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from builders import expert_of, layers_of_shapes, seeded

ROOT = Path(__file__).resolve().parents[2]
NODES = ROOT / "alignguard_nodes"
RECORDED = json.loads((NODES.parent / "tests/alignguard_nodes/node_schemas.json").read_text(encoding="utf-8"))
OURS = sorted(name for name in RECORDED if name.startswith("AlignGuard"))
FILES = {
    re.search(r'node_id="(\w+)"', text)[1]: path.stem
    for path in NODES.glob("*.py")
    if "node_id=" in (text := path.read_text(encoding="utf-8"))
}
WIDGETS = ("Int", "Float", "String", "Boolean", "Combo")


class Input:
    """A socket."""

    def __init__(self, id, **options):
        self.id, self.extra_dict, self.options = id, {}, options


class WidgetInput(Input):
    """A widget."""


class NewWidgetInput(WidgetInput):
    """A widget of a new host."""

    advanced = None


@dataclasses.dataclass
class Schema:
    """A schema of an old host: an unknown field is an error."""

    node_id: str
    display_name: str
    category: str
    description: str
    inputs: list
    outputs: list = ()
    hidden: list = ()
    is_output_node: bool = False
    is_experimental: bool = False


@dataclasses.dataclass
class NewSchema(Schema):
    """A schema of a new host."""

    search_aliases: list = ()


def schema_classes(*, new):
    widget = NewWidgetInput if new else WidgetInput
    io = MagicMock(
        ComfyNode=type("ComfyNode", (), {}),
        Schema=NewSchema if new else Schema,
        WidgetInput=WidgetInput,
    )
    for name in WIDGETS:
        getattr(io, name).Input = widget
    for name in ("Model", "Clip", "Vae", "Image", "Conditioning", "ClipVision", "MultiType"):
        getattr(io, name).Input = Input
    io.Custom = lambda kind: SimpleNamespace(Input=Input, Output=MagicMock())
    if new:
        io.Autogrow = SimpleNamespace(Input=Input, TemplateNames=SimpleNamespace)
    else:
        del io.Autogrow
    return io


@pytest.fixture(params=["old", "new"])
def age(request):
    return request.param


@pytest.fixture
def schema(node_class, age):
    """Return a function that returns the schema of a node, as a host of that age gets it."""
    api = sys.modules["comfy_api.latest"]
    api.io = schema_classes(new=age == "new")
    for module in [name for name in sys.modules if name.startswith("pack.alignguard_nodes.")]:
        if hasattr(sys.modules[module], "io"):
            sys.modules[module].io = api.io
    return lambda node: node_class(FILES[node]).define_schema()


def advanced(widget):
    return getattr(widget, "advanced", None) or widget.extra_dict.get("advanced", False)


def test_a_node_shows_at_most_eight_widgets_and_keeps_the_others_advanced(schema):
    for node in OURS:
        widgets = [item for item in schema(node).inputs if isinstance(item, WidgetInput)]
        assert sum(not advanced(widget) for widget in widgets) <= 8, node


def test_a_widget_without_a_default_is_in_sight(schema):
    for node in OURS:
        for item in schema(node).inputs:
            if isinstance(item, WidgetInput) and item.options.get("default") is None:
                assert not advanced(item), f"{item.id} of {node}"


def test_the_inputs_are_those_that_saved_graphs_store_in_their_order(schema, age):
    for node in OURS:
        inputs = [item.id for item in schema(node).inputs]
        more = [name for name in inputs if name.startswith("more_")]
        assert age == "new" or not more
        for part in ("required", "optional"):
            recorded = list(RECORDED[node][part])
            assert [name for name in inputs if name in recorded] == recorded
        assert set(inputs) - set(more) == {*RECORDED[node]["required"], *RECORDED[node]["optional"]}
        assert inputs[len(inputs) - len(more) :] == more  # after everything that has a position


def test_a_new_host_finds_a_node_by_words_that_are_not_its_name(schema, age):
    for node in OURS:
        found = schema(node)
        if age == "old":
            assert not hasattr(found, "search_aliases")
            continue
        name = found.display_name.lower()
        assert len(found.search_aliases) >= 3, node
        assert all(alias == alias.lower() and alias not in name for alias in found.search_aliases)


@pytest.mark.parametrize(
    ("node", "group", "first"),
    [
        ("AlignGuardMergeSafetyExperts", "more_experts", "expert_9"),
        ("AlignGuardSafetyBenchmark", "more_experts", "expert_9"),
        ("AlignGuardCheckSafetyStack", "more_loras", "lora_5"),
    ],
)
def test_sockets_grow_beyond_the_numbered_ones_where_the_host_can(schema, age, node, group, first):
    groups = [item for item in schema(node).inputs if item.id == group]
    assert len(groups) == (age == "new")
    for grown in groups:
        template = grown.options["template"]
        assert template.names[0] == first
        assert template.min == 0
        assert grown.options["optional"]
        assert len(template.names) <= 100  # the host's limit


def test_more_than_eight_widgets_or_an_unknown_one_in_sight_is_refused(schema, pack):
    shared = pack("alignguard_nodes.host.schema")
    widgets = [sys.modules["comfy_api.latest"].io.Int.Input(f"w{n}") for n in range(9)]
    fields = {"node_id": "N", "display_name": "n", "category": "c", "description": "d", "search_aliases": []}
    for in_sight in (None, ("w0", "gone")):
        with pytest.raises(ValueError, match="N keeps .* in sight"):
            shared.node_schema(inputs=widgets, in_sight=in_sight, **fields)
    assert shared.node_schema(inputs=widgets, in_sight=("w0",), **fields).inputs == widgets


def test_grown_sockets_follow_the_numbered_ones_at_strength_one(schema, pack):
    inputs = pack("alignguard_nodes.inputs")
    slots = {
        "expert_1": "a",
        "expert_3": "c",
        "strength_3": 0.5,
        "more_experts": {"expert_9": "i", "expert_10": None},
    }
    used = list(inputs.connected(slots, "expert", range(1, 9)))
    assert [(slot.value, slot.strength) for slot in used] == [("a", 1.0), ("c", 0.5), ("i", 1.0)]
    assert used[1].strength_name == "strength_3"
    assert list(inputs.connected({"expert_1": "a"}, "expert", (1, 2))) == [("a", 1.0, "strength_1")]


def test_a_validation_names_only_inputs_of_its_node_so_that_the_host_checks_the_others(node_class):
    checks = {node: getattr(node_class(FILES[node]), "validate_inputs", None) for node in OURS}
    assert sum(check is not None for check in checks.values()) >= 13
    for node, check in checks.items():
        if check is None:
            continue
        schema = RECORDED[node]
        parameters = inspect.signature(check).parameters.values()
        names = {p.name for p in parameters if not p.name.startswith("more_")}  # of newer hosts
        assert names <= schema["required"].keys() | schema["optional"].keys(), node
        for parameter in parameters:
            assert parameter.kind is parameter.POSITIONAL_OR_KEYWORD, node  # the host reads only these
            if parameter.name not in schema["required"]:
                assert parameter.default is not parameter.empty, f"{parameter.name} of {node} may be absent"


def test_a_validation_takes_the_sockets_that_grow_because_hosts_always_pass_them(schema, node_class, age):
    growing = {}
    for node in OURS:
        groups = {item.id for item in schema(node).inputs if item.id.startswith("more_")}
        if check := groups and getattr(node_class(FILES[node]), "validate_inputs", None):
            growing[node] = groups - inspect.signature(check).parameters.keys()
    assert len(growing) == (3 if age == "new" else 0)
    assert not any(growing.values()), growing


def test_a_merge_takes_the_experts_of_grown_sockets(node_class):
    node = node_class("merge_safety_experts")
    shape = {"mid_block.attentions.0.transformer_blocks.0.attn1.to_q": (8, 8)}
    experts = [expert_of(layers_of_shapes(shape, seeded(n), rank=1), "hate", name=f"e{n}") for n in range(10)]
    slots = {f"expert_{n + 1}": expert for n, expert in enumerate(experts[:8])}
    more = {"expert_9": experts[8], "expert_10": experts[9]}
    merged, report = node.execute("concat", more_experts=more, **slots).values
    (layer,) = merged.layers.values()
    assert layer.rank == 10
    assert all(expert.name in report for expert in experts)
