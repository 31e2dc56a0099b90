"""Describe what this pack uses of ComfyUI, as the host has it: names, and the parameters of what is called.

    python interface_proof.py COMFYUI_FOLDER PACK > host_interface.json

Prints JSON: dotted name -> parameters, "value" if it is no function, or null if the host has none. The file
beside this one is of the oldest host, ComfyUI 0.3.75.
"""

import ast
import importlib
import inspect
import json
import sys
from enum import Enum
from pathlib import Path

HOST, PACK = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, HOST)

import comfy.options

comfy.options.enable_args_parsing()

ROOTS = ("comfy", "comfy_api", "comfy_execution", "folder_paths", "server")


def main() -> None:
    """Print the interface of all files of the border."""
    used = set()
    for path in sorted(Path(PACK, "alignguard_nodes").rglob("*.py")):
        used |= _names(ast.parse(path.read_text(encoding="utf-8")))
    print(json.dumps({name: _described(name) for name in sorted(used)}, indent=0))  # noqa: T201


def _names(tree: ast.Module) -> set[str]:
    """Return the dotted names of the host that a file imports, or reaches through what it imports."""
    known, names = {}, set()
    for part in ast.walk(tree):
        if isinstance(part, ast.Import):
            known |= {alias.asname or alias.name.split(".")[0]: alias for alias in part.names}
        elif isinstance(part, ast.ImportFrom) and not part.level and part.module.split(".")[0] in ROOTS:
            for alias in part.names:
                known[alias.asname or alias.name] = f"{part.module}.{alias.name}"
                names.add(f"{part.module}.{alias.name}")
    for part in ast.walk(tree):
        if isinstance(part, ast.Attribute) and (dotted := _dotted(part)):
            first, rest = dotted.split(".", 1)
            if first in ROOTS and not isinstance(known.get(first), str):
                names.add(dotted)
            elif isinstance(known.get(first), str):
                names.add(f"{known[first]}.{rest}")
    return names


def _dotted(part: ast.expr) -> str:
    if isinstance(part, ast.Name):
        return part.id
    inner = _dotted(part.value) if isinstance(part, ast.Attribute) else ""
    return f"{inner}.{part.attr}" if inner else ""


def _described(name: str) -> str | None:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return None
            found = getattr(found, part)
        if not callable(found) or (isinstance(found, type) and issubclass(found, Enum)):
            return "value"
        try:
            return ", ".join(inspect.signature(found).parameters)
        except (TypeError, ValueError):
            return "value"
    return None


if __name__ == "__main__":
    main()
