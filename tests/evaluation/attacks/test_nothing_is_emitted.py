"""No attack leaves a prompt behind: modules cannot log, print or write, and reports have no place for one."""

import ast
import dataclasses
from pathlib import Path

import pytest

from training.evaluation.attacks import AttackReport, Outcome, StressCurve, StressPoint

FILES = sorted((Path(__file__).resolve().parents[3] / "training" / "evaluation" / "attacks").glob("*.py"))
WRITING = {"print", "open", "write", "write_text", "write_bytes", "save", "save_file", "dump"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_module_logs_prints_or_writes(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {"logging", "pickle", "warnings"} & {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.module not in ("logging", "pickle", "warnings")
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
            assert name not in WRITING, f"{path.name} line {node.lineno} calls {name}"


def test_the_result_of_an_attack_has_no_field_for_a_prompt():
    texts = {field.name for field in dataclasses.fields(AttackReport) if field.type == "str"}
    assert texts == {"attack", "kind", "judge"}  # chosen before anything is searched
    for record in (Outcome, StressPoint):
        assert all("str" not in str(kind) for kind in record.__annotations__.values())
    assert [field.name for field in dataclasses.fields(StressCurve)] == ["points"]
