"""What node schemas may say, on hosts of every age: a feature is asked for, never inferred from a version."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from comfy_api.latest import io

IN_SIGHT = 8  # the most widgets that a node shows before its advanced ones


def node_schema(
    *,
    inputs: list[io.Input],
    search_aliases: Iterable[str],
    in_sight: Iterable[str] | None = None,
    **fields: Any,
) -> io.Schema:
    """Return a schema whose rare widgets are advanced, and which is found by other words than its name.

    A host that knows no advanced widgets shows all of them; one that knows no aliases finds the node by name.

    Args:
        inputs: sockets and widgets. Saved graphs store the values by position: append, never reorder.
        search_aliases: lower-case words by which people look for the node.
        in_sight: ids of the widgets that an artist decides, at most `IN_SIGHT`; all others are advanced, also
            options that a config class gets later. None keeps every widget in sight.
        fields: everything else of `io.Schema`.

    Raises:
        ValueError: if more than `IN_SIGHT` widgets stay in sight, or one of the ids is no widget.
    """
    widgets = {widget.id: widget for widget in inputs if isinstance(widget, io.WidgetInput)}
    shown = set(widgets) if in_sight is None else set(in_sight)
    if len(shown) > IN_SIGHT or not shown <= set(widgets):
        raise ValueError(
            f"{fields['node_id']} keeps {', '.join(sorted(shown))} in sight. At most {IN_SIGHT} of these may "
            f"be: {', '.join(widgets)}."
        )
    for name in widgets.keys() - shown:
        _make_advanced(widgets[name])
    known = {field.name for field in dataclasses.fields(io.Schema)}
    found_by = {"search_aliases": list(search_aliases)} if "search_aliases" in known else {}
    return io.Schema(inputs=inputs, **found_by, **fields)


def _make_advanced(widget: io.Input) -> None:
    if hasattr(widget, "advanced"):
        widget.advanced = True
    else:
        widget.extra_dict["advanced"] = True  # the frontend of such a host knows the word already


def more_sockets(name: str, socket: io.Input, ids: Iterable[str], tooltip: str) -> list[io.Input]:
    """Return a group of sockets that shows one more than are connected; nothing where the host has none.

    `execute` gets the connected ones as a dict of id -> value under the name of the group, if it gets any.

    Args:
        name: id of the group.
        socket: what each of them is.
        ids: of the sockets, in order.
        tooltip: of the group.
    """
    if not hasattr(io, "Autogrow"):
        return []
    template = io.Autogrow.TemplateNames(input=socket, names=list(ids), min=0)
    return [io.Autogrow.Input(name, template=template, optional=True, tooltip=tooltip)]
