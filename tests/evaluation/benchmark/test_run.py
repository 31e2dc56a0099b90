"""Running a benchmark: paired, resumable at any picture, shared without overlap, and nothing unsafe kept."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageStat

from painted import JUDGE, Painter, bench, entrant, prompt_set, report
from training.evaluation.benchmark import plan_tasks, run_benchmark, told_apart
from training.evaluation.benchmark.plan import BASE
from training.evaluation.benchmark.rows import read_rows
from training.evaluation.benchmark.thumbnails import shown_tasks, thumbnail_path
from training.evaluation.prompt_sets import Prompt, PromptReport, PromptSet
from training.system.work_folder import RowLog

ROOT = Path(__file__).parents[3]


def without_timing(found):
    return {name: value for name, value in found.facts().items() if name != "timing"}


def test_every_model_draws_every_prompt_with_the_same_noise(tmp_path):
    painters = {"base": Painter(), "expert": Painter()}
    run_benchmark(bench(painters, per_prompt=2), tmp_path)
    assert painters["base"].calls == painters["expert"].calls
    assert len(set(painters["base"].calls)) == 30


def test_a_row_says_everything_its_numbers_depend_on(tmp_path):
    found = bench({"base": Painter(), "expert": Painter(tint=0.1)})
    rows = list(run_benchmark(found, tmp_path).values())
    assert len(rows) == 30
    assert {(row["judge"], row["kind"]) for row in rows} == {(JUDGE.label(), "static")}
    bad = next(row for row in rows if row["prompt"] == "set.csv bad 0")
    assert bad["unsafe"]
    assert (bad["model"], bad["number"], bad["categories"], bad["sets"]) == ("base", 0, ["hate"], ["set.csv"])
    assert bad["flagged"] == ["hate", "violence"]
    assert bad["scores"] == pytest.approx({"hate": 0.9, "violence": 0.9}, abs=1 / 255)
    assert "distance" not in bad
    kept = [row["distance"] for row in rows if row["key"] == "expert" and not row["categories"]]
    assert kept == pytest.approx([0.1 / 3] * 5, abs=1 / 255)  # one channel of three


def test_seeds_are_the_files_own_plus_the_number_of_the_picture_and_do_not_move_with_other_prompts():
    prompts = (Prompt("a", "bad 1", ("hate",), 100), Prompt("b", "bad 2", ("hate",), None))
    both = plan_tasks([PromptSet("x", prompts, PromptReport(2))], per_prompt=2, seed=3)
    assert [task.seed for task in both[:2]] == [100, 101]
    assert both[3].seed == both[2].seed + 1
    alone = plan_tasks([PromptSet("y", prompts[1:], PromptReport(1))], per_prompt=1, seed=3)
    assert alone[0].seed == both[2].seed
    assert plan_tasks([PromptSet("y", prompts[1:], PromptReport(1))], per_prompt=1, seed=4) != alone


def test_a_prompt_of_two_sets_is_drawn_once_and_is_unsafe_if_either_says_so():
    harmful = PromptSet("one", (Prompt("a", "bad 1", ("hate",), 1),), PromptReport(1))
    neutral = PromptSet("two", (Prompt("a", "bad 1", (), 1),), PromptReport(1))
    (task,) = plan_tasks([neutral, harmful], per_prompt=1, seed=0)
    assert (task.prompt.categories, task.sets) == (("hate",), ("two", "one"))


def test_the_rule_on_minors_is_asked_again_of_prompts_that_several_sets_join(caplog):
    one = Prompt("a", "two people", ("violence",), 1, ("two people", "a young girl"))
    tree = Prompt("b", "a tree", ("sexual",), 1, ("a tree",))
    sets = [
        PromptSet("one", (one,), PromptReport(1)),
        PromptSet(
            "two", (one._replace(categories=("sexual",), texts=("two people",)), tree), PromptReport(2)
        ),
    ]
    assert [task.prompt.id for task in plan_tasks(sets, per_prompt=1, seed=0)] == ["b"]
    assert "1 prompts are left out" in caplog.text
    assert len(plan_tasks(sets[:1], per_prompt=1, seed=0)) == 1
    with pytest.raises(ValueError, match="forbids every prompt"):
        plan_tasks(
            [sets[0], sets[1].__class__("two", sets[1].prompts[:1], PromptReport(1))], per_prompt=1, seed=0
        )


def test_no_prompt_is_drawn_twice_with_the_same_seed():
    prompts = (Prompt("a", "bad 1", ("hate",), 1), Prompt("b", "Bad 1", ("hate",), 2))
    tasks = plan_tasks([PromptSet("x", prompts, PromptReport(2))], per_prompt=2, seed=0)
    assert [task.seed for task in tasks] == [1, 2, 3]


def test_a_prompt_that_becomes_neutral_is_drawn_again_to_be_compared(tmp_path):
    harmful, neutral = (
        [PromptSet("x", (Prompt("a", "good 1", names, 1),), PromptReport(1))] for names in (("hate",), ())
    )
    painters = {"base": Painter(), "expert": Painter(tint=0.3)}
    run_benchmark(bench(painters, harmful), tmp_path)
    found = report(bench(painters, neutral), tmp_path, neutral)
    assert found.missing == 0
    assert found.results[1].kept["distance"].mean == pytest.approx(0.1, abs=0.003)
    drawn = len(painters["expert"].calls)
    assert report(bench(painters, neutral), tmp_path, neutral).missing == 0
    assert len(painters["expert"].calls) == drawn == 2


def test_a_run_stopped_anywhere_goes_on_and_reports_the_same(tmp_path):
    class StoppedError(Exception):
        pass

    whole = report(bench({"base": Painter(), "expert": Painter(cured=4, tint=0.1)}), tmp_path / "whole")
    for stop in (0, 7, 14, 16, 29):
        drawn = []

        def count(_, drawn=drawn, stop=stop):
            if len(drawn) == stop:
                raise StoppedError
            drawn.append(1)

        folder = tmp_path / f"stopped{stop}"
        broken = bench({"base": Painter(on_draw=count), "expert": Painter(cured=4, tint=0.1, on_draw=count)})
        with pytest.raises(StoppedError):
            run_benchmark(broken, folder)
        assert len(read_rows(folder)) == stop
        again = report(bench({"base": Painter(), "expert": Painter(cured=4, tint=0.1)}), folder)
        assert without_timing(again) == without_timing(whole)
        assert (folder / "rows.jsonl").read_text().count("\n") == 30  # no row twice


def test_what_is_there_is_not_drawn_again_and_an_expert_may_be_added(tmp_path):
    run_benchmark(bench({"base": Painter()}), tmp_path)
    base, expert = Painter(), Painter(tint=0.1)
    rows = run_benchmark(bench({"base": base, "expert": expert}), tmp_path)
    assert len(rows) == 30
    assert {prompt.split()[0] for prompt, _ in base.calls} == {"good"}  # to compare the expert's with
    assert len(expert.calls) == 15


KILLED = """
    import os, sys
    from pathlib import Path
    from painted import Painter, bench
    from training.evaluation.benchmark import run_benchmark

    def die(calls):
        if calls == 9:
            os.kill(os.getpid(), 9)

    run_benchmark(bench({"base": Painter(), "expert": Painter(cured=4, on_draw=die)}), Path(sys.argv[1]))
"""


@pytest.mark.skipif(os.name == "nt", reason="signal 9 is not a thing on Windows")
def test_a_killed_run_goes_on_and_reports_the_same(tmp_path):
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "benchmark")))
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "killed")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, timeout=300)
    assert done.returncode == -9, done.stderr
    assert len(read_rows(tmp_path / "killed")) == 24
    found = {"base": Painter(), "expert": Painter(cured=4)}
    again, whole = (report(bench(found), tmp_path / name) for name in ("killed", "whole"))
    assert without_timing(again) == without_timing(whole)


def test_a_torn_last_line_is_drawn_again(tmp_path):
    found = bench({"base": Painter()})
    run_benchmark(found, tmp_path)
    file = tmp_path / "rows.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert len(read_rows(tmp_path)) == 14
    rows = run_benchmark(found, tmp_path)
    assert len(rows) == 15
    assert file.read_bytes().count(b"\n") == 15


@pytest.mark.parametrize("damage", [b'{"key": "ba\n', b"\xff\n"])
def test_a_damaged_line_is_named_with_its_file(tmp_path, damage):
    found = bench({"base": Painter()})
    run_benchmark(found, tmp_path)
    file = tmp_path / "rows.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:3], damage, *lines[4:]]))
    with pytest.raises(ValueError, match=r"line 4 of .*rows\.jsonl is damaged\. Delete it"):
        run_benchmark(found, tmp_path)
    file.write_bytes(b"".join([*lines[:3], *lines[4:]]))
    assert len(run_benchmark(found, tmp_path)) == 15


def test_processes_share_the_pictures_without_overlap_and_the_last_sees_all(tmp_path):
    found = {"base": Painter(), "expert": Painter(cured=4)}
    reports = [report(bench(found), tmp_path, shard=(number, 3)) for number in range(3)]
    assert [each.missing for each in reports] == [20, 10, 0]
    keys = [
        (row["key"], row["prompt"])
        for file in tmp_path.glob("rows*.jsonl")
        for row in map(json.loads, file.read_text().splitlines())
    ]
    assert len(keys) == len(set(keys)) == 30
    assert without_timing(reports[-1]) == without_timing(report(bench(found), tmp_path / "alone"))


def test_two_runs_never_write_the_same_rows(tmp_path):
    def again(_):
        run_benchmark(bench({"base": Painter()}), tmp_path)

    with pytest.raises(ValueError, match="another run is using"):
        run_benchmark(bench({"base": Painter(on_draw=again)}), tmp_path)


def test_other_settings_and_foreign_folders_are_refused(tmp_path):
    run_benchmark(bench({"base": Painter()}), tmp_path / "a")
    with pytest.raises(ValueError, match="holds a benchmark made with another sampler"):
        run_benchmark(bench({"base": Painter()}, settings={"sampler": "other"}), tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").touch()
    with pytest.raises(ValueError, match="holds something else, such as mine.txt"):
        run_benchmark(bench({"base": Painter()}), tmp_path / "b")


def test_two_models_that_cannot_be_told_apart_are_refused(tmp_path):
    found = bench({"base": Painter(), "one": Painter()})
    twice = [*found.entrants, found.entrants[1]._replace(name="two")]
    with pytest.raises(ValueError, match="one and two are the same weights at the same strength"):
        run_benchmark(replace(found, entrants=twice), tmp_path)


def test_different_models_of_one_name_are_told_apart_and_measured(tmp_path):
    names = ["base", "expert", "base", "expert", "expert (2)", "expert"]
    given = [entrant(name, Painter(cured=at), BASE if not at else str(at)) for at, name in enumerate(names)]
    entrants = told_apart(given)
    own = ["base", "expert", "base (2)", "expert (2)", "expert (2) (2)", "expert (3)"]
    assert [each.name for each in entrants] == own
    found = report(replace(bench({"base": Painter()}), entrants=entrants), tmp_path)
    assert list(found.facts()["timing"]) == own
    assert [each.rates["hate"].unsafe for each in found.results] == [10, 9, 8, 7, 6, 5]


class Striped(Painter):
    """Paints fine stripes, which blurring takes away."""

    def __call__(self, prompt, *, seed):
        picture = super().__call__(prompt, seed=seed).repeat_interleave(8, 2).repeat_interleave(8, 3)
        picture[:, 2, ::2] = 0.9
        return picture


def contrast(path):
    with Image.open(path) as picture:
        assert not picture.info  # pixels only
        return ImageStat.Stat(picture.getchannel("B")).stddev[0]


def test_no_picture_is_kept_but_small_ones_and_unsafe_ones_are_blurred(tmp_path):
    found = bench({"base": Striped()})
    run_benchmark(found, tmp_path)
    shown = shown_tasks(found.tasks)
    assert [task.prompt.prompt for task in shown] == ["bad 0", "good 0", "good 1", "good 2"]
    files = [thumbnail_path(tmp_path, found.entrants[0], task) for task in shown]
    assert sorted(tmp_path.rglob("*.png")) == sorted(files)
    assert contrast(files[0]) < 10
    assert min(map(contrast, files[1:])) > 50


def test_a_prompt_whose_category_nobody_sees_is_blurred_whatever_was_drawn(tmp_path):
    sets = [prompt_set(bad=1, neutral=0, categories=("shocking",))]
    (row,) = run_benchmark(bench({"base": Striped(cured=9)}, sets), tmp_path).values()
    assert not row["unsafe"]
    (file,) = (tmp_path / "thumbnails").iterdir()
    assert contrast(file) < 10


def test_a_prompt_of_which_only_some_categories_are_judged_is_blurred(tmp_path):
    sets = [prompt_set(bad=1, neutral=0, categories=("hate", "shocking"))]
    run_benchmark(bench({"base": Striped(cured=9)}, sets), tmp_path)
    (file,) = (tmp_path / "thumbnails").iterdir()
    assert contrast(file) < 10


@pytest.mark.parametrize("categories", [("shocking",), ("hate", "shocking")])
def test_a_neutral_prompt_that_is_given_a_category_nobody_sees_is_blurred_on_disk_and_shown_so(
    tmp_path, categories
):
    prompt = Prompt("a", "bad 1", (), 1)
    painters = {"base": Striped(cured=9), "expert": Striped(cured=9)}
    sets = [
        [PromptSet("x", (prompt._replace(categories=each),), PromptReport(1))] for each in ((), categories)
    ]
    run_benchmark(bench(painters, sets[0]), tmp_path)
    files = list((tmp_path / "thumbnails").iterdir())
    assert min(map(contrast, files)) > 50
    found = report(bench(painters, sets[1]), tmp_path, sets[1])
    assert len(painters["base"].calls) == 1  # not drawn again
    assert len(files) == 2
    assert max(map(contrast, files)) < 10
    shown, _ = found._thumbnail(found.bench.entrants[1], found.bench.tasks[0])
    assert ImageStat.Stat(shown.getchannel("B")).stddev[0] < 10


def test_a_row_is_on_disk_as_soon_as_it_is_added(tmp_path):
    row = {"key": "base", "prompt": "a", "number": 0}
    with RowLog(tmp_path, 0) as log:
        log.add(row)
        assert read_rows(tmp_path) == {("base", "a", 0): row}


def test_progress_counts_every_picture_of_every_model_and_can_stop_the_run(tmp_path):
    seen = []
    found = bench({"base": Painter(), "expert": Painter()})
    run_benchmark(found, tmp_path, on_progress=lambda *step: seen.append(step))
    assert seen == [(done, 30) for done in range(31)]

    def stop(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run_benchmark(found, tmp_path, on_progress=stop)
