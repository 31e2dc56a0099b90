"""Making pairs, with a model that paints the prompt's first word as a level of red, and a judge of red."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from training.config import MakeConfig
from training.evaluation import Judge, Panel
from training.making.make_pairs import DrawingModel, make_pairs
from training.making.prompt_pairs import parse_prompt_pairs
from training.making.weigh_pairs import weigh_pairs
from training.pairs import load_pairs

ROOT = Path(__file__).parents[2]
REDS = {"bad": 0.9, "mild": 0.45, "good": 0.1}
PROMPTS = "\n".join(f"bad {n} => good {n}" for n in range(4))
JUDGE = Judge("red", "1", "plain", 0.5, ("hate",), lambda images: images[:, 0].mean(dim=(1, 2))[:, None])
FACTS = {"model": "abc", "sampler": "plain", "resolution": 16}


class Model:
    """Paints; the seed determines the green channel, so that other noise gives another picture."""

    def __init__(self, reds=REDS):
        self.reds, self.calls = reds, []

    def __call__(self, prompt, *, seed, negative="", source=None, strength=1.0):
        self.calls.append((prompt, seed, negative, source, strength))
        red = self.reds[prompt.split()[0]]
        picture = torch.full((1, 3, 16, 16), red(len(self.calls)) if callable(red) else red)
        picture[:, 1] = seed % 251 / 255
        picture[:, 2] = int(prompt.split()[1]) / 255
        return picture


def make(folder, model=None, prompts=PROMPTS, category="hate", facts=FACTS, **options):
    """Make pairs in a folder; the options are those of `make_pairs` and of `MakeConfig`."""
    names = ("panel", "shard", "on_progress")
    arguments = {"panel": Panel((JUDGE,))} | {name: options.pop(name) for name in names if name in options}
    pairs = parse_prompt_pairs(prompts, category).pairs
    drawing_model = DrawingModel(model or Model(), facts)
    return make_pairs(pairs, drawing_model, folder, MakeConfig(**options), **arguments)


def rows(folder):
    return [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_made_pairs_are_a_folder_that_loads_whole(tmp_path):
    assert make(tmp_path / "pairs").made == 4
    pairs = load_pairs(tmp_path / "pairs")
    assert pairs.report.num_dropped == 0
    assert [pair.unsafe_prompt for pair in pairs.pairs] == [f"bad {n}" for n in range(4)]
    assert all(pair.categories == ("hate",) for pair in pairs.pairs)


def test_every_row_records_its_settings_and_its_scores(tmp_path):
    make(tmp_path / "pairs", seed=3)
    row = rows(tmp_path / "pairs")[0]
    assert row["scores"] == {
        "unsafe_image": pytest.approx(0.9, abs=0.01),
        "safe_image": pytest.approx(0.1, abs=0.01),
        "loser_is_unsafe": True,
        "winner_is_safe": True,
        "judge": "red 1, preset plain, threshold 0.5",
    }
    assert {"model": "abc", "sampler": "plain", "way": "same_seed", "steps": 30}.items() <= row[
        "made"
    ].items()


def test_both_pictures_come_from_the_seed_that_is_recorded(tmp_path):
    model = Model()
    make(tmp_path / "pairs", model)
    for row, loser, winner in zip(rows(tmp_path / "pairs"), model.calls[::2], model.calls[1::2], strict=True):
        assert loser[1] == winner[1] == row["made"]["seed"]
        assert (loser[0], winner[0]) == (row["unsafe_prompt"], row["safe_prompt"])
    assert len({call[1] for call in model.calls}) == 4


def test_sdedit_paints_the_winner_over_the_stored_loser_with_the_unsafe_prompt_as_negative(tmp_path):
    model = Model()
    make(tmp_path / "pairs", model, way="sdedit", strength=0.6)
    prompt, _, negative, source, strength = model.calls[1]
    assert (prompt, negative, strength) == ("good 0", "bad 0", 0.6)
    with Image.open(tmp_path / "pairs" / rows(tmp_path / "pairs")[0]["unsafe_image"]) as stored:
        assert tuple((source[0, :, 0, 0] * 255).round().int().tolist()) == stored.getpixel((0, 0))


def test_a_safe_loser_is_drawn_again_before_its_winner(tmp_path):
    model = Model({**REDS, "bad": lambda call: 0.9 if call >= 3 else 0.2})
    report = make(tmp_path / "pairs", model, prompts="bad 1 => good 1", attempts=4)
    assert report.made == 1
    assert [call[0] for call in model.calls] == ["bad 1"] * 3 + ["good 1"]
    assert rows(tmp_path / "pairs")[0]["made"]["attempt"] == 2
    assert len({call[1] for call in model.calls}) == 3  # other noise each time


def test_attempts_are_limited_and_pairs_that_are_given_up_are_counted_by_reason(tmp_path):
    model = Model()
    report = make(
        tmp_path / "pairs", model, prompts="mild 1 => good 1\nbad 2 => bad 3\nbad 4 => good 4", attempts=3
    )
    assert report.made == 1
    assert {reason: len(ids) for reason, ids in report.rejected.items()} == {
        "the unsafe prompt drew nothing unsafe": 1,
        "the safe prompt drew something unsafe": 1,
    }
    assert len(model.calls) == 3 + 2 * 3 + 2
    assert len(list((tmp_path / "pairs").glob("*.png"))) == 2  # nothing is left of rejected pictures
    assert "1 pairs made, 2 given up." in report.text()


def test_a_run_that_is_finished_draws_nothing_again_and_says_so(tmp_path):
    first = make(tmp_path / "pairs", Model())
    assert "Nothing was drawn" not in first.text()
    model = Model()
    again = make(tmp_path / "pairs", model)
    assert (model.calls, again) == ([], first)
    assert "Nothing was drawn: an earlier run with equal inputs has made all of this." in again.text()


@pytest.mark.parametrize("judged", [True, False])
def test_a_model_that_draws_only_black_is_named_also_where_every_pair_is_given_up(tmp_path, judged):
    def black(prompt, **_):
        return torch.zeros(1, 3, 16, 16)

    panel = Panel((JUDGE,)) if judged else None
    report = make(tmp_path / "pairs", black, panel=panel, attempts=2)
    assert (report.made, sum(map(len, report.rejected.values()))) == ((0, 4) if judged else (4, 0))
    assert "all 8 pictures of this run are black." in report.text()
    again = make(tmp_path / "pairs", black, panel=panel, attempts=2)  # draws nothing, and knows it still
    assert again.remarks == report.remarks
    assert make(tmp_path / "others").remarks == []


def test_a_pair_that_is_given_up_records_prompts_seeds_and_scores_of_every_attempt(tmp_path):
    model = Model()
    make(tmp_path / "pairs", model, prompts="mild 1 => good 1\nbad 2 => mild 3\nbad 4 => bad 5", attempts=2)
    files = [json.loads(file.read_text()) for file in (tmp_path / "pairs" / "rows").glob("*.json")]
    given_up = {row["unsafe_prompt"]: row for row in files if isinstance(row, dict) and "rejected" in row}
    assert given_up.keys() == {"mild 1", "bad 4"}
    mild, bad = given_up["mild 1"], given_up["bad 4"]
    assert (mild["safe_prompt"], mild["category"], mild["made"]["model"]) == ("good 1", ["hate"], "abc")
    seeds = {call[1] for call in model.calls if call[0] == "mild 1"}
    assert {attempt["seed"] for attempt in mild["attempts"]} == seeds
    assert [attempt["scores"] for attempt in mild["attempts"]] == [
        {"unsafe_image": pytest.approx(0.45, abs=0.01)}
    ] * 2
    both = {"unsafe_image": pytest.approx(0.9, abs=0.01), "safe_image": pytest.approx(0.9, abs=0.01)}
    assert [attempt["scores"] for attempt in bad["attempts"]] == [both] * 2
    assert bad["made"]["judge"] == "red 1, preset plain, threshold 0.5"


@pytest.mark.parametrize(("word", "unmeasured"), [("mild", 1), ("bad", 0)])
def test_a_pair_with_an_uncovered_category_is_measured_only_if_another_category_is_flagged(
    tmp_path, word, unmeasured
):
    report = make(tmp_path / "p", prompts=f"{word} 1 => good 1", category="hate,violence")
    assert (report.made, report.rejected, report.unmeasured) == (1, {}, unmeasured)
    assert ("scores" in rows(tmp_path / "p")[0]) == (not unmeasured)


def test_a_pair_of_an_uncovered_category_is_kept_without_scores_and_counted(tmp_path):
    report = make(tmp_path / "p", prompts="mild 1 => good 1", category="violence")
    assert (report.made, report.unmeasured) == (1, 1)
    assert "scores" not in rows(tmp_path / "p")[0]
    assert "1 not measured by any judge" in report.text()


def test_without_a_judge_every_pair_is_kept_and_none_counts_as_unmeasured(tmp_path):
    report = make(tmp_path / "pairs", prompts="mild 1 => bad 1", panel=None)
    assert (report.made, report.unmeasured) == (1, 0)


def test_several_pairs_of_one_line_come_from_different_noise(tmp_path):
    make(tmp_path / "pairs", prompts="bad 1 => good 1", per_prompt=3)
    assert len({row["made"]["seed"] for row in rows(tmp_path / "pairs")}) == 3
    assert load_pairs(tmp_path / "pairs").report.kept == 3


def test_a_stopped_run_continues_to_the_same_files(tmp_path):
    class Stop(Exception):  # noqa: N818
        pass

    def stop(done, total):
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        make(tmp_path / "stopped", on_progress=stop)
    assert load_pairs(tmp_path / "stopped").report.kept == 2  # usable as it is
    model = Model()
    assert make(tmp_path / "stopped", model).made == 4
    assert len(model.calls) == 2 * 2
    make(tmp_path / "whole")
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_more_lines_and_more_pairs_per_line_are_added_to_what_is_there(tmp_path):
    make(tmp_path / "pairs", prompts="bad 1 => good 1")
    model = Model()
    make(tmp_path / "pairs", model, prompts="bad 0 => good 0\nbad 1 => good 1", per_prompt=2)
    assert len(model.calls) == 2 * 3
    assert [row["unsafe_prompt"] for row in rows(tmp_path / "pairs")] == ["bad 0"] * 2 + ["bad 1"] * 2


def edit(folder, change):
    """Edit the lines of a manifest as a person does."""
    lines = (folder / "pairs.jsonl").read_text().splitlines()
    (folder / "pairs.jsonl").write_text("".join(f"{line}\n" for line in change(lines)))
    return (folder / "pairs.jsonl").read_bytes()


def test_making_again_keeps_edits_of_the_manifest(tmp_path):
    make(tmp_path / "pairs", panel=None)
    weigh_pairs(tmp_path / "pairs", Panel((JUDGE,)))
    mine = '{"id": "mine", "note": 1}'
    edited = edit(
        tmp_path / "pairs",
        lambda lines: [lines[0].replace("good 0", "fine 0"), *lines[1:], mine, "no object"],
    )
    model = Model()
    assert make(tmp_path / "pairs", model, panel=None).made == 4
    assert (model.calls, (tmp_path / "pairs" / "pairs.jsonl").read_bytes()) == ([], edited)
    report = make(tmp_path / "pairs", model, prompts=f"{PROMPTS}\nbad 9 => good 9", panel=None)
    lines = (tmp_path / "pairs" / "pairs.jsonl").read_bytes().splitlines()
    assert report.made == 5
    assert lines[:4] + lines[5:] == edited.splitlines()


def test_a_line_taken_out_by_hand_stays_out_and_is_counted(tmp_path):
    make(tmp_path / "pairs")
    edited = edit(tmp_path / "pairs", lambda lines: lines[1:])
    taken = next((tmp_path / "pairs").glob("u_*.png"))
    for _ in range(2):
        model = Model()
        report = make(tmp_path / "pairs", model)
        assert (report.made, report.missing, len(model.calls)) == (3, 0, 0)
        assert {reason: len(ids) for reason, ids in report.rejected.items()} == {
            "taken out of pairs.jsonl by hand": 1
        }
        assert (tmp_path / "pairs" / "pairs.jsonl").read_bytes() == edited
    (tmp_path / "pairs" / "pairs.jsonl").unlink()
    assert taken.exists()
    assert make(tmp_path / "pairs").made == 4  # without a manifest nothing counts as removed


def test_pairs_of_removed_prompts_leave_the_manifest_and_return_unchanged(tmp_path):
    make(tmp_path / "pairs", panel=None)
    weigh_pairs(tmp_path / "pairs", Panel((JUDGE,)))
    whole = (tmp_path / "pairs" / "pairs.jsonl").read_bytes()
    make(tmp_path / "pairs", prompts="bad 2 => good 2", panel=None)
    assert [row["unsafe_prompt"] for row in rows(tmp_path / "pairs")] == ["bad 2"]
    make(tmp_path / "pairs", panel=None)
    assert (tmp_path / "pairs" / "pairs.jsonl").read_bytes() == whole


@pytest.mark.parametrize("side", ["unsafe_image", "safe_image"])
def test_a_missing_picture_is_drawn_again(tmp_path, side):
    make(tmp_path / "pairs")
    before = contents(tmp_path / "pairs")
    (tmp_path / "pairs" / rows(tmp_path / "pairs")[2][side]).unlink()
    other = make(tmp_path / "pairs", shard=(0, 4))  # another process has the row
    assert (other.made, other.missing) == (3, 1)
    model = Model()
    assert make(tmp_path / "pairs", model).made == 4
    assert [call[0] for call in model.calls] == ["bad 2", "good 2"]
    assert contents(tmp_path / "pairs") == before


def test_a_torn_manifest_of_a_killed_run_is_swept(tmp_path):
    make(tmp_path / "pairs")
    before = contents(tmp_path / "pairs")
    (tmp_path / "pairs" / ".pairs.jsonl.0123abcd.tmp").write_text("torn")
    (tmp_path / "pairs" / "rows" / ".listed.json.0123abcd.tmp").write_text("torn")
    make(tmp_path / "pairs")
    assert contents(tmp_path / "pairs") == before


def test_a_folder_of_something_else_or_of_other_settings_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "pairs.jsonl").write_text("precious")
    with pytest.raises(ValueError, match="holds something else, such as pairs.jsonl"):
        make(tmp_path / "mine")
    assert contents(tmp_path / "mine") == {"pairs.jsonl": b"precious"}
    assert not (tmp_path / "mine" / "rows").exists()
    make(tmp_path / "pairs")
    for change in ({"steps": 5}, {"facts": {**FACTS, "model": "other"}}, {"panel": None}):
        with pytest.raises(ValueError, match="made with another (steps|model|judge)"):
            make(tmp_path / "pairs", **change)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_rows_without_overlap_and_the_last_leaves_the_whole_manifest(tmp_path, world):
    models = [Model() for _ in range(world)]
    reports = [make(tmp_path / "many", model, shard=(rank, world)) for rank, model in enumerate(models)]
    assert sum(len(model.calls) for model in models) == 2 * 4
    assert reports[0].missing > 0
    assert (reports[-1].made, reports[-1].missing) == (4, 0)
    make(tmp_path / "one")
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_rows_that_join_sexual_content_with_a_word_for_a_minor_are_never_drawn(tmp_path):
    text = "bad 1 => good 1\nan erotic kid => good 2\nbad 3 => the kid, erotic"
    read = parse_prompt_pairs(
        text + '\n{"unsafe_prompt": "kid", "safe_prompt": "x", "category": "sexual"}', "hate"
    )
    assert [pair.unsafe_prompt for pair in read.pairs] == ["bad 1"]
    assert read.dropped == {"sexual content together with a word for a minor": ["line 2", "line 3", "line 4"]}


SCRIPT = """
import sys, os, signal, torch
from pathlib import Path
from PIL import Image
from training.config import MakeConfig
from training.making.make_pairs import DrawingModel, make_pairs
from training.making.prompt_pairs import parse_prompt_pairs
kill_at, folders = int(sys.argv[1]), map(Path, sys.argv[2:])
saved = 0
plain = Image.Image.save
def save(self, path, **options):
    global saved
    plain(self, path, **options)
    saved += 1
    if saved == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
Image.Image.save = save
def draw(prompt, *, seed, **_):
    picture = torch.full((1, 3, 8, 8), 0.9 if "bad" in prompt else 0.1)
    picture[:, 1] = seed % 251 / 255
    return picture
pairs = parse_prompt_pairs("bad 1 => good 1\\nbad 2 => good 2", "hate").pairs
for folder in folders:
    make_pairs(pairs, DrawingModel(draw, {}), folder, MakeConfig())
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows")
def test_a_run_killed_within_a_row_continues_to_the_files_of_an_unbroken_run(tmp_path):
    def run(kill_at, *folders):
        command = [sys.executable, "-c", SCRIPT, str(kill_at), *map(str, folders)]
        return subprocess.run(command, cwd=ROOT, capture_output=True).returncode

    assert run(4, tmp_path / "killed") == -9  # the winner of the second row is written, but not yet named
    assert any(path.name.endswith(".tmp") for path in (tmp_path / "killed").iterdir())
    assert run(0, tmp_path / "killed", tmp_path / "whole") == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
