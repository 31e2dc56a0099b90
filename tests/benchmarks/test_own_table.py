"""What the table says of counts that are known."""

import columns
import own_table
import own_table_host
import pytest
import torch
from candidates import Candidate, as_change, changed
from columns import COLUMNS
from PIL import Image

from measurement import render_graph
from training.low_rank import LowRank
from training.taxonomy import CATEGORIES


@pytest.fixture
def table():
    safe = dict.fromkeys(CATEGORIES, [0, 16])
    kept = {"safe counterparts": [105, 105], "neutral": [81, 90]}
    row = {"train_s": 12.4, **dict.fromkeys(own_table.SAFETY, safe), "kept": kept}
    leaky = {**safe, "violence": [8, 16]}
    return {"ours": row, "theirs": row | {"IP, unseen words": leaky}}


def test_every_column_but_what_is_kept_is_of_safety():
    assert own_table.SAFETY == [name for name in COLUMNS if name.startswith("IP")]


def test_a_row_says_shares_intervals_worst_category_and_time(table):
    ours, theirs = own_table.markdown(table).splitlines()[2:]
    assert ours.count("0.000 (0.00-0.03) of 112 | 0.00 |") == 4
    assert "1.000 (0.96-1.00) of 105 | 0.900 (0.82-0.95) of 90 | 12 |" in ours
    assert "0.071 (0.04-0.13) of 112 | 0.50 violence |" in theirs


def test_lines_of_the_table_have_equally_many_cells(table):
    assert len({line.count("|") for line in own_table.markdown(table).splitlines()}) == 1


def test_table_and_plot_are_written(table, tmp_path):
    own_table.publish(table, tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["own_table.md", "own_table.png"]
    Image.open(tmp_path / "new" / "own_table.png").verify()


def test_mean_ip_is_over_all_safety_columns(table):
    assert own_table.mean_ip(table["ours"]) == 0
    assert own_table.mean_ip(table["theirs"]) == pytest.approx(8 / 112 / 4)


def test_changes_add_up_and_go_away_to_the_bit():
    layer = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False))
    before = layer[0].weight.detach().clone()
    lora = {"0": LowRank(torch.ones(2, 1), torch.full((1, 3), 0.5))}
    with changed(layer, as_change(lora, layer), {"0.weight": torch.ones(2, 3)}):
        torch.testing.assert_close(layer[0].weight, before + 1.5)
    assert torch.equal(layer[0].weight, before)


def test_a_candidate_with_experts_uses_a_category_s_own():
    single, merged = Candidate({"hate": {"a": 1}, "sexual": {"a": 2}}), Candidate({"": {"a": 3}})
    assert (single.change("sexual"), merged.change("sexual")) == ({"a": 2}, {"a": 3})
    assert Candidate({}).change("hate") == {}


def test_both_ways_of_drawing_are_told_beside_each_other():
    inside = {"IP": {"hate": [True, False]}, "kept": {"neutral": [True, True]}}
    outside = {"IP": {"hate": [True, True]}, "kept": {"neutral": [True, False]}}
    row = own_table_host.figures(inside, outside)
    assert {name: text[:5] for name, text in row.items()} == {
        **{"IP, server": "0.500", "IP, outside": "1.000"},
        **{"kept, server": "1.000", "kept, outside": "0.500", "same": "0.500"},
    }


def test_a_merged_expert_draws_every_group_and_single_ones_their_own():
    merged, single = Candidate({"": {}}), Candidate({name: {} for name in CATEGORIES})
    assert [columns.users(one, "hate") for one in (merged, single)] == [["hate"], ["hate"]]
    assert [columns.users(one, "neutral") for one in (merged, single)] == [[""], list(CATEGORIES)]


def test_the_server_pushes_every_prompt_of_the_stress_column_and_no_other():
    group = own_table_host.UNSAFE["violence"]
    for column in own_table_host.COLUMNS.values():
        conditions = own_table_host._conditions(column, "violence")
        graph = render_graph(group, "model", per_prompt=1, prefix="x", **conditions)
        graph |= own_table_host._concepts()
        source = graph["sample0"]["inputs"]["positive"][0]
        assert (source == "stress0") == bool(column.eta)
        if column.eta:
            pushed = graph["stress0"]["inputs"]
            assert (pushed["conditioning"], pushed["eta"]) == (["text0", 0], column.eta)
            assert graph[pushed["concept"][0]]["class_type"] == "AlignGuardConceptVector"
        assert (graph["sample0"]["inputs"]["model"][0] == "lora") == column.styled
