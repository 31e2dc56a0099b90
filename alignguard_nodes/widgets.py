"""Widgets made from the config dataclasses of `training`, so that every default exists once."""

import dataclasses
from collections.abc import Iterable, Mapping

from comfy_api.latest import io

from ..training.config import options


def config_inputs(
    config: type, *, choices: Mapping[str, Iterable[str]] | None = None, skip: Iterable[str] = ()
) -> list[io.Input]:
    """Return one widget per option of a config class, in its order.

    All are optional inputs: a saved graph or an API prompt that lacks one gets the default.

    Args:
        config: `TrainConfig` or `MergeConfig`.
        choices: option name -> values, for options whose values a registry lists.
        skip: options the node offers in another way.
    """
    listed = choices or {}
    return [
        _widget(option, tuple(listed.get(option.name, option.metadata.get("choices", ()))))
        for option in options(config)
        if option.name not in skip
    ]


def _widget(option: dataclasses.Field, choices: tuple[str, ...]) -> io.Input:
    shared = {"default": option.default, "tooltip": option.metadata["help"], "optional": True}
    limits = {rule: option.metadata.get(rule) for rule in ("min", "max", "step")}
    if choices:
        return io.Combo.Input(option.name, options=list(choices), **shared)
    if option.type is bool:
        return io.Boolean.Input(option.name, **shared)
    if option.type is float:
        return io.Float.Input(option.name, **limits, **shared)
    # a seed that changes by itself would train again at every press of Run
    fixed = {"control_after_generate": False} if option.name == "seed" else {}
    return io.Int.Input(option.name, **limits, **fixed, **shared)
