"""The table for known counts, and the graphs that draw its pictures."""

import zlib
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import columns
import own_table
import server_drawer
from candidates import Candidate, as_change, changed
from columns import COLUMNS, EVERY, Drawer
from mini_lab import MiniLab
from training.experts.low_rank import LowRank
from training.rules.categories import CATEGORIES


class _Embeds(dict):
    def __missing__(self, prompt):
        return torch.full((77, 768), float(zlib.crc32(prompt.encode())))


@pytest.fixture
def table():
    safe = dict.fromkeys(CATEGORIES, [0, 16])
    kept = {"safe counterparts": [105, 105], "neutral": [81, 90]}
    same = {"IP": [111, 112], "kept": [195, 195]}
    row = {"train_s": 12.4, **dict.fromkeys(own_table.SAFETY, safe), "kept": kept, own_table.SAME: same}
    leaky = {**safe, "violence": [8, 16]}
    return {"ours": row, "theirs": row | {"IP, unseen words": leaky}}


def test_every_column_of_ip_is_a_safety_column():
    assert own_table.SAFETY == [name for name in COLUMNS if name.startswith("IP")]


def test_a_row_has_shares_intervals_time_and_the_agreement_of_both_ways_of_drawing(table):
    ours, theirs = own_table.markdown(table).splitlines()[2:4]
    assert ours.count("0.000 (0.00-0.03) of 112 |") == 4
    assert "1.000 (0.96-1.00) of 105 | 0.900 (0.82-0.95) of 90 | 12 | 306 of 307 |" in ours
    assert "0.071 (0.04-0.13) of 112 |" in theirs


def test_the_second_table_has_the_ip_of_every_category(table):
    headings, _, ours, theirs = own_table.markdown(table).splitlines()[-4:]
    at = headings.split(" | ").index("violence")
    assert ours.split(" | ")[at] == "0.00 / 0.00 / 0.00 / 0.00"
    assert theirs.split(" | ")[at] == "0.00 / 0.50 / 0.00 / 0.00"


def test_all_lines_of_a_table_have_the_same_number_of_cells(table):
    parts = own_table.markdown(table).split("\n\n")
    assert [len({line.count("|") for line in part.splitlines()}) for part in parts] == [1, 1]


def test_the_table_and_the_plot_are_written(table, tmp_path):
    own_table.publish(table, tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["own_table.md", "own_table.png"]
    Image.open(tmp_path / "new" / "own_table.png").verify()


def test_the_mean_ip_is_over_all_safety_columns(table):
    assert own_table.mean_ip(table["ours"]) == 0
    assert own_table.mean_ip(table["theirs"]) == pytest.approx(8 / 112 / 4)


def test_changes_add_up_and_are_undone_bit_for_bit():
    layer = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False))
    before = layer[0].weight.detach().clone()
    lora = {"0": LowRank(torch.ones(2, 1), torch.full((1, 3), 0.5))}
    with changed(layer, as_change(lora, layer), {"0.weight": torch.ones(2, 3)}):
        torch.testing.assert_close(layer[0].weight, before + 1.5)
    assert torch.equal(layer[0].weight, before)


def test_a_candidate_with_experts_uses_the_expert_of_the_category():
    single, merged = Candidate({"hate": {"a": 1}, "sexual": {"a": 2}}), Candidate({"": {"a": 3}})
    assert (single.change("sexual"), merged.change("sexual")) == ({"a": 2}, {"a": 3})
    assert Candidate({}).change("hate") == {}


def test_a_merged_expert_draws_every_group_and_a_single_expert_its_category():
    merged, single = Candidate({"": {}}), Candidate({name: {} for name in CATEGORIES})
    assert [columns.users(candidate, "hate") for candidate in (merged, single)] == [["hate"], ["hate"]]
    assert [columns.users(candidate, "neutral") for candidate in (merged, single)] == [[""], list(CATEGORIES)]


def test_prompts_have_the_same_seeds_in_a_part_as_in_the_whole_group(monkeypatch):
    lab = SimpleNamespace(embeds=_Embeds(), unet=torch.nn.Module(), prompt_pairs=MiniLab.prompt_pairs)
    lab.judge = SimpleNamespace(look=lambda pictures: [None] * len(pictures))
    drawer, seeds = Drawer(lab, {}), []
    monkeypatch.setattr(columns, "render_latents", lambda *inputs: seeds.append(list(inputs[3])))
    monkeypatch.setattr(columns, "decoded", lambda *_: torch.zeros(len(seeds[-1]), 3, 64, 64))
    monkeypatch.setattr(columns, "kept_text", lambda _: nullcontext())
    for part in (EVERY, slice(None, None, 2)):
        drawer.look(Candidate({}), COLUMNS["IP"], "hate", part)
    assert seeds[0] == list(range(columns.FIRST_SEED, columns.FIRST_SEED + columns.PROMPTS))
    assert seeds[1] == seeds[0][::2]


@pytest.mark.parametrize("name", COLUMNS)
def test_the_graph_of_every_column_draws_its_prompts_style_and_concept(name):
    column, part = COLUMNS[name], slice(None, None, 2)
    key = next(iter(column.groups))
    model_nodes = {"candidate": {"class_type": "UNETLoader", "inputs": {}}}
    graph = server_drawer.column_graph(model_nodes, column, key, part, "x")
    guider, noise = graph["guider"]["inputs"], graph["noise"]["inputs"]["seeds"].split()
    prompts = graph[f"prompts {column.groups[key].name}"]["inputs"]["prompts"].split("\n")
    assert prompts == list(column.groups[key].prompts[part])
    assert len(noise) == len(prompts) == graph["latent"]["inputs"]["batch_size"]
    assert guider["model"] == ["style" if column.styled else "candidate", 0]
    assert (guider["positive"] == ["pushed", 0]) == bool(column.eta)
    if column.eta:
        assert graph["pushed"]["inputs"] == {
            "conditioning": [f"prompts {column.groups[key].name}", 0],
            "concept": [f"concept {key}", 0],
            "eta": column.eta,
        }
