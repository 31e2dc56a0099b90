"""One check of what reaches a node, for all nodes: every value is of the kind that its input declares.

ComfyUI compares numbers from widgets with their range, but lets NaN through, compares no choice of a V3 node
with its list, checks nothing that comes through a link, and hands plain JSON to a socket.
"""

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from numbers import Integral, Real
from typing import Any

from comfy_api.latest import io

_MOST_LETTERS = 4096  # of a choice: more than any path has
_SHOWN_LETTERS = 60
_GROWING = "COMFY_AUTOGROW_V3"  # type of a group of sockets, whose value is a dict


def with_checked_values(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """Make a node refuse values of another kind than it declares, before its own code sees them.

    `execute` then raises ValueError, and `validate_inputs`, if the node has it, returns the sentence.
    """
    run, check = node.execute.__func__, vars(node).get("validate_inputs")

    def execute(cls: type, **values: Any) -> io.NodeOutput:
        reason = next(_problems(cls.SCHEMA.inputs, values, _own_checks(check)), "")
        if reason:
            raise ValueError(reason)
        return run(cls, **values)

    node.execute = classmethod(functools.wraps(run)(execute))
    if check is not None:
        node.validate_inputs = classmethod(_validating(check.__func__))
    return node


def _validating(check: Callable[..., bool | str]) -> Callable[..., bool | str]:
    signature = inspect.signature(check)
    required = [
        name for name, one in signature.parameters.items() if one.default is one.empty and name != "cls"
    ]

    def validate_inputs(cls: type, **values: Any) -> bool | str:
        if not values.keys() >= set(required):
            return True  # the host itself says which are missing
        given = {name: value for name, value in values.items() if value is not None}  # None: through a link
        reason = next(_problems(cls.SCHEMA.inputs, given, values), "")
        return reason or check(cls, **values)

    validate_inputs.__signature__ = signature  # from which the host learns what to pass
    return validate_inputs


def _own_checks(check: Any) -> Iterable[str]:
    return inspect.signature(check.__func__).parameters if check is not None else ()


def _problems(specs: Iterable[io.Input], values: dict[str, Any], own_checks: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for every value that is not of the kind of its input.

    Args:
        specs: the inputs that the schema declares.
        values: by the ids of the inputs; others are ignored.
        own_checks: ids of the choices that the node itself compares with more than a list.
    """
    for spec in specs:
        value = values.get(spec.id)
        if spec.id not in values or (value is None and getattr(spec, "lazy", False)):  # None: not needed
            continue
        kinds = spec.get_io_type().split(",")
        if kinds == [_GROWING]:
            grown = value if isinstance(value, dict) else {}
            reasons = [(name, _socket_problem("SAFETY_EXPERT", one, True)) for name, one in grown.items()]
        elif kinds[0] in _WIDGETS:
            reasons = [(spec.id, _WIDGETS[kinds[0]](spec, value, spec.id in own_checks))]
        elif "STRING" in kinds and isinstance(value, str):
            continue
        else:
            reasons = [(spec.id, _socket_problem(kinds[0], value, spec.optional))]
        yield from (f"{name} must be {reason}, got {_shown(value)}." for name, reason in reasons if reason)


def _number_problem(spec: io.Input, value: Any, checked: bool) -> str:
    is_whole = spec.get_io_type() == "INT"
    kind = "a whole number" if is_whole else "a number"
    low, high = getattr(spec, "min", None), getattr(spec, "max", None)
    text = f"{kind} from {low:g} to {high:g}" if None not in (low, high) else kind
    if not isinstance(value, Integral if is_whole else Real) or isinstance(value, bool):
        return text
    if not is_whole and not math.isfinite(value):
        return text
    if spec.id.startswith("strength") and low == 0:  # the node says why a negative one is refused
        return ""
    is_outside = (low is not None and value < low) or (high is not None and value > high)
    return text if is_outside else ""


def _choice_problem(spec: io.Input, value: Any, checked: bool) -> str:
    options = [str(option) for option in spec.options or ()]
    if checked and isinstance(value, str):
        return "" if len(value) <= _MOST_LETTERS else f"a name of at most {_MOST_LETTERS:,} letters"
    return "" if isinstance(value, str) and value in options else f"one of {', '.join(options)}"


def _text_problem(spec: io.Input, value: Any, checked: bool) -> str:
    return "" if isinstance(value, str) else "text"


def _switch_problem(spec: io.Input, value: Any, checked: bool) -> str:
    return "" if isinstance(value, bool) else "true or false"


_WIDGETS = {
    "INT": _number_problem,
    "FLOAT": _number_problem,
    "COMBO": _choice_problem,
    "STRING": _text_problem,
    "BOOLEAN": _switch_problem,
}


def _socket_problem(kind: str, value: Any, optional: bool) -> str:
    if (value is None and optional) or not _is_plain(value):
        return ""
    return f"connected to an output of the type {kind}"


def _is_plain(value: Any) -> bool:
    """Return whether a value is nothing but JSON, as an API prompt may put into a socket."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]}... ({len(text):,} letters)"
