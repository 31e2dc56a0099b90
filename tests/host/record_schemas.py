"""Record the node schemas of a real ComfyUI in tests/alignguard_nodes/node_schemas.json.

Run it with the Python of `.venv` after a deliberate change of a schema, and check the difference:

    .venv/bin/python tests/host/record_schemas.py
"""

import json
import tempfile
from pathlib import Path

from comfy_server import ComfyServer

GROWING = "COMFY_AUTOGROW_V3"  # type of a group of sockets that grows
SCHEMAS = Path(__file__).resolve().parents[1] / "alignguard_nodes" / "node_schemas.json"


def schema(info: dict) -> dict:
    """Reduce the server's information on a node to what saved graphs and API callers depend on."""
    inputs = {
        part: {name: "COMBO" if isinstance(spec[0], list) else spec[0] for name, spec in specs.items()}
        for part, specs in ((part, info["input"].get(part, {})) for part in ("required", "optional"))
    }
    outputs = [list(pair) for pair in zip(info["output_name"], info["output"], strict=True)]
    return {
        "display_name": info["display_name"],
        **inputs,
        "outputs": outputs,
        "output_node": info["output_node"],
    }


def on_every_host(live: dict, recorded: dict, *, is_stock: bool) -> dict:
    """Return a live schema without what newer hosts have in addition; no other difference is accepted.

    Their own nodes may have more optional inputs and outputs, which no graph of ours uses, and other names
    for people. Ours have groups of sockets there that grow.

    Args:
        live: schema of the running host.
        recorded: schema of the oldest host.
        is_stock: whether the node is the host's own.
    """
    optional = {name: kind for name, kind in live["optional"].items() if kind != GROWING}
    if not is_stock:
        return {**live, "optional": optional}
    return {
        **live,
        "display_name": recorded["display_name"],
        "optional": {name: kind for name, kind in optional.items() if name in recorded["optional"]},
        "outputs": live["outputs"][: len(recorded["outputs"])],
    }


def main() -> None:
    """Write the schemas of all nodes of the pack and of the stock nodes recorded before."""
    stock = [name for name in json.loads(SCHEMAS.read_text(encoding="utf-8")) if "AlignGuard" not in name]
    with tempfile.TemporaryDirectory() as base, ComfyServer(Path(base)) as server:
        infos = server.object_info()
    ours = [name for name in infos if name.startswith("AlignGuard")]
    schemas = {name: schema(infos[name]) for name in sorted([*ours, *stock])}
    schemas |= {name: on_every_host(schemas[name], schemas[name], is_stock=False) for name in ours}
    SCHEMAS.write_text(json.dumps(schemas, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
