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


def of(value):
    return content_hash(value, "patches")


def value(*, tensor=1.0, strength=0.5, factor=2, kind=nn.Identity):
    """What a host keeps of its patches, in small: nested, with functions, modules and bare references."""
    shared = torch.full((2, 3), tensor)
    return {
        "weight": [(strength, SimpleNamespace(weights=(shared, None), loaded={"a", "b", "c"}), 1.0)],
        Reference(): {"function": scaled(factor), "twice": [shared, shared]},
        "module": kind(),
    }


def test_equal_content_has_one_name_and_other_content_another():
    names = [of(value(**changed)) for changed in ({}, {"tensor": 2.0}, {"strength": 0.6}, {"factor": 3})]
    names.append(of(value(kind=type("Sampling", (nn.Identity,), {}))))
    assert len(set(names)) == len(names)
    assert of(value()) == names[0]


def test_type_and_device_of_a_tensor_make_no_difference_and_its_shape_does():
    tensor = torch.arange(6.0).reshape(2, 3)
    assert of([tensor, tensor.device]) == of([tensor.to(torch.bfloat16), torch.device("meta")])
    assert of(tensor) != of(tensor.reshape(3, 2))


def test_one_object_used_twice_is_like_two_equal_ones():
    assert of([scaled(2)] * 2) == of([scaled(2), scaled(2)])


def test_functions_are_told_apart_by_code_constants_defaults_and_bound_object():
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
    assert len({of(function) for function in functions}) == len(functions)


def test_a_value_that_holds_itself_has_a_name():
    first, second = [1], [1]
    first.append(first)
    second.append(second)
    assert of(first) == of(second) != of([1])


@pytest.mark.parametrize("hidden", [threading.Lock(), functools, print, scaled(threading.Lock())])
def test_what_cannot_be_seen_is_refused_by_name(hidden):
    with pytest.raises(ValueError, match=r"content of patches\.inner.* cannot be seen"):
        of({"inner": [hidden]})
