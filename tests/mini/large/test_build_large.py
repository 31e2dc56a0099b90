"""The files that `python -m training mini --world large` writes."""

import pytest
import torch

from training.mini import build
from training.mini.build import build_mini
from training.mini.large.pairs import pairs_to_draw
from training.mini.large.shipped import LARGE
from training.mini.text_encoder import TOKEN_SPREAD, VOCABULARY, WIDTH, drawn
from training.pairs import load_pairs
from training.system.tensors import open_tensors

TABLE = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"


@pytest.mark.parametrize(
    ("world", "other"),
    [
        ("small", build.LARGE_CHECKPOINT),
        ("large", build.CHECKPOINT),
        ("flow", build.CHECKPOINT),
        ("small", build.FLOW_CHECKPOINT),
    ],
)
def test_a_folder_of_the_other_world_is_refused_and_kept(tmp_path, world, other):
    (tmp_path / other).write_bytes(b"checkpoint")
    with pytest.raises(ValueError, match="Choose another folder"):
        build_mini(tmp_path, world=world)
    assert [path.name for path in tmp_path.iterdir()] == [other]


@pytest.mark.slow
def test_pairs_load_without_dropped_rows_and_ask_for_what_was_to_be_drawn(large_mini):
    (folder,) = large_mini["pairs"].iterdir()
    pairs = load_pairs(folder)
    wanted = {
        (pair.unsafe.prompt, pair.safe.prompt) for pair in pairs_to_draw("shocking", len(pairs.pairs) + 8)
    }
    assert pairs.categories == ("shocking",)
    assert {(pair.unsafe_prompt, pair.safe_prompt) for pair in pairs.pairs} <= wanted
    assert pairs.pairs
    assert not pairs.neutral
    assert not pairs.report.dropped


@pytest.mark.slow
def test_there_are_no_experts_of_the_large_world(large_mini):
    assert {name: path.exists() for name, path in large_mini.items()} == dict.fromkeys(
        ("checkpoint", "judge", "neutral", "pairs"), True
    )


@pytest.mark.slow
def test_the_checkpoint_has_the_shape_of_sd15_and_words_with_meaning(large_mini):
    ids, rows = LARGE.token_rows()
    with open_tensors(large_mini["checkpoint"]) as state:
        first = state["model.diffusion_model.input_blocks.0.0.weight"]
        table, title = state[TABLE].float(), state.metadata["modelspec.title"]
    assert first.shape == (320, 4, 3, 3)
    assert title == "AlignGuard mini, large world"
    expected = drawn("token", (VOCABULARY, WIDTH), TOKEN_SPREAD)
    expected[ids] = rows
    assert torch.equal(table, expected)


@pytest.mark.slow
def test_the_written_judge_is_the_shipped_one(large_mini):
    written, original = LARGE.load_judge(large_mini["judge"]).state_dict(), LARGE.load_judge().state_dict()
    assert all(torch.equal(written[name], original[name]) for name in original)


@pytest.mark.slow
def test_building_the_large_world_again_changes_nothing(large_mini):
    folder = large_mini["checkpoint"].parent
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    build_mini(folder, world="large", categories=("shocking",))
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
