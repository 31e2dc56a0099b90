"""The file that `dev.py bench` writes and the table that it prints."""

import json

import pytest

import run
from table import as_table


def test_a_part_replaces_its_figures_and_keeps_those_of_other_parts(tmp_path):
    out = tmp_path / "new" / "bench.json"
    run.keep(out, "flops", {"ratio": 1.0}, 2.0)
    run.keep(out, "steps", {"ratio": 0.5}, 3.0)
    run.keep(out, "flops", {"ratio": 0.7}, 4.0)
    result = json.loads(out.read_text(encoding="utf-8"))
    assert (result["flops"], result["steps"]) == ({"ratio": 0.7}, {"ratio": 0.5})
    assert result["circumstances"]["flops"]["seconds"] == 4.0
    assert [path.name for path in out.parent.iterdir()] == ["bench.json"]


def test_the_error_for_an_unknown_part_lists_the_parts(capsys):
    with pytest.raises(SystemExit) as ended:
        run.main(["speed"])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "'speed'" in message
    assert all(part in message for part in run.PARTS)


def test_rows_become_a_table_and_single_figures_a_list():
    text = as_table({"SD 1.5": {"ours": 5.16149, "ratio": 0.5}, "SDXL": {"ours": 42.0}, "pairs": 1})
    assert text.splitlines() == [
        "         ours  ratio",
        "SD 1.5  5.161    0.5",
        "SDXL       42",
        "pairs       1",
    ]
