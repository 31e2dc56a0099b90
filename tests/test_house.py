"""Limits on sizes and names keep the tree readable; `pytest tests/test_house.py -rP` prints each figure."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for wing in ("training", "alignguard_nodes") for path in (ROOT / wing).rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
VAGUE = {"own", "each", "found", "told", "said"}  # local names that do not describe their values


def lines_of(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def functions():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT).as_posix()}:{node.lineno} {node.name}", node


def num_parameters(function):
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def vague_names():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            name = node.arg if isinstance(node, ast.arg) else getattr(node, "id", None)
            stored = isinstance(node, ast.arg) or isinstance(getattr(node, "ctx", None), ast.Store)
            if name in VAGUE and stored:
                yield f"{path.relative_to(ROOT).as_posix()}:{node.lineno} {name}"


FIGURES = {  # what is counted -> (maximum, function that lists it)
    "entries of training/": (
        16,
        lambda: [p.name for p in (ROOT / "training").iterdir() if p.name != "__pycache__"],
    ),
    "files of 40 lines or fewer": (25, lambda: [str(path) for path in FILES if lines_of(path) <= 40]),
    "files of more than 300 lines": (0, lambda: [str(path) for path in FILES if lines_of(path) > 300]),
    "functions of more than seven parameters": (
        5,
        lambda: [name for name, function in functions() if num_parameters(function) > 7],
    ),
    "functions of more than 60 lines": (  # except schemas, which are data
        0,
        lambda: [
            name
            for name, function in functions()
            if function.end_lineno - function.lineno >= 60 and function.name != "define_schema"
        ],
    ),
    "vague local names": (20, lambda: list(vague_names())),
    "lines of README.md": (120, lambda: (ROOT / "README.md").read_text(encoding="utf-8").splitlines()),
}


@pytest.mark.parametrize("figure", FIGURES)
def test_the_house_stays_readable(figure):
    most, list_items = FIGURES[figure]
    items = list_items()
    print(f"{figure}: {len(items)} (at most {most})")  # noqa: T201 - printed by -rP
    assert len(items) <= most, "\n".join(items)
