"""How an option is declared, listed and validated: its default, range and tooltip stand in one place."""

import dataclasses
import math
from typing import Any

SEED_HELP = (
    "Another number gives another, equally valid result; the same number repeats it. Paper: not stated."
)
MAX_STRENGTH = 2.0  # of an expert: 0 is off, 1 is as trained; a negative strength would undo safety
SEED_MAX = 2**63 - 1  # the largest that both torch.Generator.manual_seed and the host's widget accept


def option(default: Any, text: str, **rules: Any) -> Any:
    """Declare an option of a config class.

    Args:
        default: value; its type is the type of the option.
        text: tooltip and command-line help.
        rules: any of `min`, `max` and `step` (numbers), `choices` (a tuple of texts) and `positive` (True:
            must be above 0).
    """
    return dataclasses.field(default=default, metadata={"help": text, **rules})


def options(cls: type) -> list[dataclasses.Field]:
    """Return the options of a config class in widget order: name, type, default and metadata."""
    return list(dataclasses.fields(cls))


def option_help(cls: type, name: str) -> str:
    """Return the tooltip of an option.

    Raises:
        ValueError: if the class has no option of that name.
    """
    for field in options(cls):
        if field.name == name:
            return field.metadata["help"]
    names = ", ".join(field.name for field in options(cls))
    raise ValueError(f"{cls.__name__} has no option {name!r}. Use one of: {names}.")


def validate(config: Any) -> None:
    """Check every field of a config and turn whole numbers into floats where the field is a float.

    Raises:
        ValueError: if a value breaks the rule of its field; the message names the field, rule and value.
    """
    for field in options(type(config)):
        value = getattr(config, field.name)
        if field.type is float and type(value) is int:
            value = float(value)  # JSON does not tell 1 from 1.0
            object.__setattr__(config, field.name, value)
        problem = _type_problem(field, value) or _range_problem(field, value)
        if problem:
            shown = repr(value) if isinstance(value, str) else _plain(value)
            raise ValueError(f"{field.name} {problem}, got {shown}.")


def _type_problem(field: dataclasses.Field, value: Any) -> str:
    if type(value) is not field.type:  # the exact type, because True must not pass for the whole number 1
        kinds = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        return f"must be {kinds[field.type]}"
    if field.type is float and not math.isfinite(value):
        return "must be finite"
    return ""


def _range_problem(field: dataclasses.Field, value: Any) -> str:
    rules = field.metadata
    if rules.get("positive") and value <= 0:
        return "must be positive"
    if "min" in rules and value < rules["min"]:
        return f"must be at least {_plain(rules['min'])}"
    if "max" in rules and value > rules["max"]:
        return f"must be at most {_plain(rules['max'])}"
    if "choices" in rules and value not in rules["choices"]:
        return f"must be one of {', '.join(rules['choices'])}"
    return ""


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
