"""Hashes of nested values: equal content, equal hash."""

import functools
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from training.models.hashes import content_hash


def scaled(factor):
    return lambda value: value * factor


class Reference:
    pass


def hash_of(value):
    return content_hash(value, "patches")


def value(*, tensor=1.0, strength=0.5, factor=2, kind=nn.Identity):
    """Return a small copy of a host's patches: nested, with functions, modules and bare references."""
    shared = torch.full((2, 3), tensor)
    return {
        "weight": [(strength, SimpleNamespace(weights=(shared, None), loaded={"a", "b", "c"}), 1.0)],
        Reference(): {"function": scaled(factor), "twice": [shared, shared]},
        "module": kind(),
    }


def test_equal_content_has_one_hash_and_different_content_another():
    hashes = [
        hash_of(value(**changed)) for changed in ({}, {"tensor": 2.0}, {"strength": 0.6}, {"factor": 3})
    ]
    hashes.append(hash_of(value(kind=type("Sampling", (nn.Identity,), {}))))
    assert len(set(hashes)) == len(hashes)
    assert hash_of(value()) == hashes[0]


def test_the_hash_of_a_tensor_depends_on_its_shape_but_not_on_type_or_device():
    tensor = torch.arange(6.0).reshape(2, 3)
    assert hash_of([tensor, tensor.device]) == hash_of([tensor.to(torch.bfloat16), torch.device("meta")])
    assert hash_of(tensor) != hash_of(tensor.reshape(3, 2))


def test_one_object_used_twice_equals_two_equal_objects():
    assert hash_of([scaled(2)] * 2) == hash_of([scaled(2), scaled(2)])


def test_functions_differ_by_code_constants_defaults_and_bound_object():
    def plain(a, b=1):
        return a + b

    def other(a, b=2):
        return a + b

    other.__qualname__ = plain.__qualname__
    functions = [
        plain,
        other,
        lambda a: a + 1,
        lambda a: a + 2,
        nn.ReLU().forward,
        nn.ReLU(inplace=True).forward,
    ]
    assert len({hash_of(function) for function in functions}) == len(functions)


def test_a_value_that_contains_itself_has_a_hash():
    first, second = [1], [1]
    first.append(first)
    second.append(second)
    assert hash_of(first) == hash_of(second) != hash_of([1])


@pytest.mark.parametrize("hidden", [threading.Lock(), functools, print, scaled(threading.Lock())])
def test_content_that_cannot_be_read_is_refused_by_name(hidden):
    with pytest.raises(ValueError, match=r"content of patches\.inner.* cannot be read"):
        hash_of({"inner": [hidden]})


def test_an_object_that_names_its_content_is_identified_by_that_wherever_its_class_is():
    def declared(strength):
        kind = type("Declared", (), {"content_facts": lambda self: ["expert", strength]})
        kind.__module__ = f"custom_nodes.install_{id(kind)}"
        return kind()

    assert hash_of(declared(1.0)) == hash_of(declared(1.0)) != hash_of(declared(0.5))
