"""Values of a wrong kind are refused with a sentence before a node's own code sees them."""

import inspect
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch


def spec(name, kind, **facts):
    return SimpleNamespace(**{"id": name, "optional": False, **facts}, get_io_type=lambda: kind)


INPUTS = [
    spec("expert", "SAFETY_EXPERT"),
    spec("concept", "CONCEPT_VECTOR", optional=True),
    spec("conditioning", "CONDITIONING"),
    spec("calibration", "SAFETY_PAIRS,STRING", optional=True),
    spec("more_experts", "COMFY_AUTOGROW_V3", optional=True),
    spec("strength", "FLOAT", min=0.0, max=2.0),
    spec("strength_1", "FLOAT", min=-2.0, max=2.0),
    spec("eta", "FLOAT", min=0.0, max=10.0),
    spec("steps", "INT", min=1, max=100),
    spec("method", "COMBO", options=["concat", "ties"]),
    spec("file", "COMBO", options=["a.csv"]),
    spec("text", "STRING"),
    spec("replacement", "STRING", lazy=True),
    spec("active", "BOOLEAN"),
]


@pytest.fixture
def node(pack):
    """A node that returns what reaches it; its `validate_inputs` takes two of its inputs."""

    class Node:
        SCHEMA = SimpleNamespace(inputs=INPUTS)

        @classmethod
        def validate_inputs(cls, file, steps=1):
            return "too many steps" if steps == 99 else True

        @classmethod
        def execute(cls, **values):
            return values

    return pack("alignguard_nodes.checked_values").with_checked_values(Node)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("strength", -1.0),  # the node's own sentence says why not
        ("expert", object()),
        ("concept", None),
        ("conditioning", [[torch.zeros(1), {"pooled_output": torch.zeros(1)}]]),
        ("calibration", "a prompt"),
        ("more_experts", {"expert_9": object()}),
        ("more_experts", None),
        ("strength", 1),
        ("strength", np.float32(0.5)),
        ("eta", 10.0),
        ("steps", np.int64(5)),
        ("method", "ties"),
        ("file", "b.csv"),  # the node itself compares it
        ("text", ""),
        ("replacement", None),  # linked, and not needed this time
        ("active", False),
        ("unknown", math.nan),
    ],
)
def test_a_value_of_the_declared_kind_reaches_the_node_as_it_is(node, name, value):
    assert node.execute(**{name: value})[name] is value


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("expert", "abc", "expert must be connected to an output of the type SAFETY_EXPERT, got 'abc'."),
        ("expert", None, "SAFETY_EXPERT, got nothing."),
        ("expert", {"a": [1, {}]}, "SAFETY_EXPERT, got {'a': [1, {}]}."),
        ("concept", "", "concept must be connected to an output of the type CONCEPT_VECTOR, got ''."),
        ("conditioning", [], "CONDITIONING, got []."),
        ("calibration", 5, "calibration must be connected to an output of the type SAFETY_PAIRS, got 5."),
        ("more_experts", {"expert_9": "abc"}, "expert_9 must be connected"),
        ("eta", math.nan, "eta must be a number from 0 to 10, got nan."),
        ("eta", math.inf, "eta must be a number from 0 to 10, got inf."),
        ("eta", 11.0, "eta must be a number from 0 to 10, got 11.0."),
        ("eta", "1", "eta must be a number from 0 to 10, got '1'."),
        ("strength", math.nan, "strength must be a number from 0 to 2, got nan."),
        ("strength_1", -3.0, "strength_1 must be a number from -2 to 2, got -3.0."),
        ("steps", 0, "steps must be a whole number from 1 to 100, got 0."),
        ("steps", 1.5, "steps must be a whole number from 1 to 100, got 1.5."),
        ("steps", True, "steps must be a whole number from 1 to 100, got True."),
        ("method", "magic", "method must be one of concat, ties, got 'magic'."),
        ("method", None, "method must be one of concat, ties, got nothing."),
        ("file", 5, "file must be one of a.csv, got 5."),
        ("file", "a" * 5000, "file must be a name of at most 4,096 letters"),
        ("text", 5, "text must be text, got 5."),
        ("active", 1, "active must be true or false, got 1."),
    ],
)
def test_a_value_of_another_kind_is_refused_with_a_sentence(node, name, value, sentence):
    with pytest.raises(ValueError, match=r"\.$") as refused:
        node.execute(**{name: value})
    assert sentence in str(refused.value)
    assert len(str(refused.value)) < 200


def test_the_queue_does_not_start_with_a_value_of_another_kind(node):
    assert node.validate_inputs(file=[1], steps=1) == "file must be one of a.csv, got [1]."
    assert node.validate_inputs(file="b.csv", steps=math.nan).startswith("steps must be a whole number")
    assert node.validate_inputs(file="b.csv", steps=99) == "too many steps"
    assert node.validate_inputs(file=None, steps=2) is True  # comes through a link


def test_what_the_host_asks_of_a_node_does_not_change(node):
    assert list(inspect.signature(node.validate_inputs).parameters) == ["file", "steps"]
    assert node.validate_inputs(steps=2) is True  # the host names the missing input itself


def test_a_node_without_checks_of_its_own_gets_none(pack):
    plain = type("Plain", (), {"execute": classmethod(lambda cls, **values: values)})
    assert "validate_inputs" not in vars(pack("alignguard_nodes.checked_values").with_checked_values(plain))
