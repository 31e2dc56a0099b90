"""The dependency direction is enforced: alignguard_nodes -> training -> torch, diffusers, peft."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOST = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "nodes", "server", "alignguard_nodes"}
LATE = {"diffusers", "peft", "transformers"}  # a broken install must not remove the nodes
NETWORK = {"socket", "ssl", "http", "urllib.request", "requests", "httpx", "aiohttp", "ftplib", "smtplib"}
ROWS = [  # a wing may import from rows above its own, never from its own row or below
    {"system", "rules", "config"},
    {"models"},
    {"pairs", "experts"},
    {"losses"},
    {"trainer", "merging"},
    {"mini"},
    {"evaluation"},
    {"guards"},
    {"making"},
    {"commands"},
]
LEVEL = {name: level for level, row in enumerate([*ROWS, {"__init__", "__main__"}]) for name in row}
NOT_AT_START = (  # must not be imported when ComfyUI starts; nodes import it when they run
    *("trainer", "mini", "commands", "evaluation/attacks", "evaluation/benchmark", "evaluation/measures"),
    *("experts/extract", "experts/applied", "making/make_pairs", "models/base_model"),
)
FILES = sorted(ROOT.glob("training/**/*.py"))
IDS = [path.relative_to(ROOT).as_posix() for path in FILES]


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path, nodes):
    """Yield imports of a file as tuples of names, relative ones resolved against ROOT."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = tuple(node.module.split(".")) if node.module else ()
            yield from ((*base, *module, alias.name) for alias in node.names)


def file_of(target):
    """Return the file of this repository that defines an imported name, None for other packages."""
    for parts in (target, target[:-1]):
        for end in (".py", "/__init__.py"):
            path = ROOT / ("/".join(parts) + end)
            if parts and path.is_file():
                return path
    return None


def loaded_with(path):
    """Return the files of this repository that importing one executes, without imports inside functions."""
    loaded, waiting = set(), [path]
    while waiting:
        path = waiting.pop()
        if path is None or path in loaded:
            continue
        loaded.add(path)
        packages = path.relative_to(ROOT).parents[:-1]  # without the root, which is not a package
        waiting += [ROOT / package / "__init__.py" for package in packages]
        waiting += [file_of(target) for target in imports(path, tree_of(path).body)]
    return loaded


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_training_imports_only_downwards(path):
    wing = path.relative_to(ROOT).parts[1].removesuffix(".py")
    for target in imports(path, ast.walk(tree_of(path))):
        assert target[0] not in HOST, f"training must not import {'.'.join(target)}"
        if target[0] == "training" and target[1] != wing:
            assert LEVEL[target[1]] < LEVEL[wing], f"{wing} must not import {target[1]}"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_heavy_packages_are_imported_inside_functions(path):
    for target in imports(path, tree_of(path).body):
        assert target[0] not in LATE, f"import {target[0]} inside the function that uses it"


def test_only_the_local_endpoint_imports_network_modules():
    for path in FILES:
        for target in imports(path, ast.walk(tree_of(path))):
            if NETWORK & {target[0], ".".join(target[:2])}:
                assert path.relative_to(ROOT).as_posix() == "training/making/local_endpoint.py", target


def test_every_module_of_training_has_a_row():
    modules = {path.relative_to(ROOT).parts[1].removesuffix(".py") for path in FILES}
    assert modules <= LEVEL.keys()


def test_comfyui_starts_with_only_the_modules_that_schemas_need():
    for path in loaded_with(ROOT / "alignguard_nodes" / "__init__.py") & set(FILES):
        place = path.relative_to(ROOT / "training").as_posix()
        assert not place.startswith(NOT_AT_START), f"import training/{place} in the function that needs it"
