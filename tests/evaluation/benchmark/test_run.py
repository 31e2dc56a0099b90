"""Running a benchmark: paired, resumable at any picture, and shared between processes without overlap."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from painted import JUDGE, STRICT, Painter, changed, make_bench, run_report
from training.evaluation.benchmark import run_benchmark
from training.evaluation.benchmark.rows import read_rows
from training.evaluation.prompt_sets import Prompt, PromptReport, PromptSet
from training.system.work_folder import RowLog

TESTS = Path(__file__).parents[2]


def without_timing(report):
    return {name: value for name, value in report.facts().items() if name != "timing"}


def test_every_model_draws_every_prompt_with_the_same_noise(tmp_path):
    painters = {"base": Painter(), "expert": Painter()}
    run_benchmark(make_bench(painters, per_prompt=2), tmp_path)
    assert painters["base"].calls == painters["expert"].calls
    assert len(set(painters["base"].calls)) == 30


def test_a_row_holds_everything_that_its_numbers_depend_on(tmp_path):
    bench = make_bench({"base": Painter(), "expert": Painter(tint=0.1)})
    rows = list(run_benchmark(bench, tmp_path).values())
    assert len(rows) == 30
    assert {(row["judge"], row["kind"]) for row in rows} == {(JUDGE.label(), "static")}
    bad = next(row for row in rows if row["prompt"] == "set.csv bad 0")
    assert bad["unsafe"]
    assert (bad["model"], bad["number"], bad["categories"], bad["sets"]) == ("base", 0, ["hate"], ["set.csv"])
    assert bad["flagged"] == ["hate", "violence"]
    assert bad["scores"] == pytest.approx({"hate": 0.9, "violence": 0.9}, abs=1 / 255)
    assert "distance" not in bad
    distances = [row["distance"] for row in rows if row["key"] == "expert" and not row["categories"]]
    assert distances == pytest.approx([0.1 / 3] * 5, abs=1 / 255)  # one channel of three


def cornered(prompt, *, seed):
    """Paint a picture whose only red is in one quarter."""
    picture = torch.zeros(1, 3, 8, 8)
    picture[:, 0, :4, :4] = 1.0
    return picture


@pytest.mark.parametrize(("judges", "count"), [((JUDGE,), 1), ((JUDGE, STRICT), 2)])
def test_tiles_find_what_is_small_and_every_number_says_that_they_were_looked_at(tmp_path, judges, count):
    bench = make_bench({"base": cornered}, judges=judges)
    judges_alone = [row for row in run_benchmark(bench, tmp_path / "frames").values() if row["unsafe"]]
    assert len(judges_alone) == (0 if count == 1 else 15)  # the strict judge sees a quarter in the whole
    tiled = replace(bench, scopes="tiles")
    rows = list(run_benchmark(tiled, tmp_path / "tiles").values())
    assert len(rows) == 15
    assert all(row["unsafe"] and row["judge"] == f"{bench.panel.label()}, scopes tiles" for row in rows)
    assert all(len(row.get("judges", {})) in (0, count) for row in rows)
    assert all(one["unsafe"] for row in rows for one in row.get("judges", {}).values())
    with pytest.raises(ValueError, match="judge"):  # verdicts of two kinds do not share a folder
        run_benchmark(tiled, tmp_path / "frames")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_measure_that_is_not_finite_names_the_picture_and_writes_no_row(tmp_path, value):
    bench = make_bench({"base": Painter()}, of_pictures={"clip_score": lambda picture, text: value})
    with pytest.raises(ValueError, match=rf"clip_score of picture 1 of prompt '.*' by base is {value}\."):
        run_benchmark(bench, tmp_path)
    assert all(row["categories"] for row in read_rows(tmp_path).values())  # only pictures without the measure

    features = torch.zeros(2048)
    features[5] = value
    bench = make_bench({"base": Painter()}, features=lambda picture: features)
    with pytest.raises(ValueError, match="the features for FID of picture 1 of prompt .* not finite"):
        run_benchmark(bench, tmp_path / "fid")
    assert not list((tmp_path / "fid").glob("features*"))


@pytest.mark.parametrize(
    ("value", "look"), [((0.0, 0.0, 0.0), "black"), ((1.0, 1.0, 1.0), "white"), ((0.2, 0.5, 0.1), "equal")]
)
def test_a_model_all_of_whose_pictures_are_black_white_or_equal_is_named_in_every_report(
    tmp_path, value, look
):
    def broken(prompt, *, seed):
        return torch.tensor(value)[None, :, None, None].expand(1, 3, 8, 8)

    report = run_report(make_bench({"base": Painter(), "broken": broken}), tmp_path)
    sentence = f"all 15 pictures of broken are {look}."
    assert sentence in report.text()
    assert "pictures of base are" not in report.text()
    report.write()
    assert any(
        note.startswith(sentence) for note in json.loads((tmp_path / "report.json").read_bytes())["notes"]
    )
    assert sentence in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_rows_of_an_earlier_version_say_nothing_about_how_pictures_look(tmp_path):
    def black(prompt, *, seed):
        return torch.zeros(1, 3, 8, 8)

    report = run_report(make_bench({"base": black}), tmp_path)
    old = {key: {name: row[name] for name in row if name != "look"} for key, row in report.study.rows.items()}
    assert "black" not in changed(report, rows=old).text()


def test_a_prompt_that_becomes_neutral_is_drawn_again_to_be_compared(tmp_path):
    harmful, neutral = (
        [PromptSet("x", (Prompt("a", "good 1", names, 1),), PromptReport(1))] for names in (("hate",), ())
    )
    painters = {"base": Painter(), "expert": Painter(tint=0.3)}
    run_benchmark(make_bench(painters, harmful), tmp_path)
    findings = run_report(make_bench(painters, neutral), tmp_path, neutral).findings
    assert findings.num_missing == 0
    assert findings.results[1].changes["distance"].mean == pytest.approx(0.1, abs=0.003)
    drawn = len(painters["expert"].calls)
    assert run_report(make_bench(painters, neutral), tmp_path, neutral).findings.num_missing == 0
    assert len(painters["expert"].calls) == drawn == 2


def test_a_run_stopped_anywhere_can_be_continued_and_reports_the_same(tmp_path):
    class StoppedError(Exception):
        pass

    def painters(on_draw=None):
        expert = Painter(cured=4, tint=0.1, on_draw=on_draw)
        return {"base": Painter(on_draw=on_draw), "expert": expert}

    whole = run_report(make_bench(painters()), tmp_path / "whole")
    for stop in (0, 7, 14, 16, 29):
        drawn = []

        def count(_, drawn=drawn, stop=stop):
            if len(drawn) == stop:
                raise StoppedError
            drawn.append(1)

        folder = tmp_path / f"stopped{stop}"
        with pytest.raises(StoppedError):
            run_benchmark(make_bench(painters(count)), folder)
        assert len(read_rows(folder)) == stop
        again = run_report(make_bench(painters()), folder)
        assert without_timing(again) == without_timing(whole)
        assert (folder / "rows.jsonl").read_text().count("\n") == 30  # no row twice


def test_existing_pictures_are_not_drawn_again_and_an_expert_may_be_added(tmp_path):
    run_benchmark(make_bench({"base": Painter()}), tmp_path)
    base, expert = Painter(), Painter(tint=0.1)
    rows = run_benchmark(make_bench({"base": base, "expert": expert}), tmp_path)
    assert len(rows) == 30
    assert {prompt.split()[0] for prompt, _ in base.calls} == {"good"}  # to compare the expert's with
    assert len(expert.calls) == 15


KILLED = """
    import os, sys
    from pathlib import Path
    from painted import Painter, make_bench
    from training.evaluation.benchmark import run_benchmark

    def die(calls):
        if calls == 9:
            os.kill(os.getpid(), 9)

    bench = make_bench({"base": Painter(), "expert": Painter(cured=4, on_draw=die)})
    run_benchmark(bench, Path(sys.argv[1]))
"""


@pytest.mark.skipif(os.name == "nt", reason="signal 9 is not a thing on Windows")
def test_a_killed_run_can_be_continued_and_reports_the_same(tmp_path):
    path = os.pathsep.join((str(TESTS.parent), str(TESTS)))
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "killed")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, timeout=300)
    assert done.returncode == -9, done.stderr
    assert len(read_rows(tmp_path / "killed")) == 24
    painters = {"base": Painter(), "expert": Painter(cured=4)}
    again, whole = (run_report(make_bench(painters), tmp_path / name) for name in ("killed", "whole"))
    assert without_timing(again) == without_timing(whole)


def test_a_torn_last_line_is_drawn_again(tmp_path):
    bench = make_bench({"base": Painter()})
    run_benchmark(bench, tmp_path)
    file = tmp_path / "rows.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert len(read_rows(tmp_path)) == 14
    rows = run_benchmark(bench, tmp_path)
    assert len(rows) == 15
    assert file.read_bytes().count(b"\n") == 15


@pytest.mark.parametrize("damage", [b'{"key": "ba\n', b"\xff\n"])
def test_a_damaged_line_is_named_with_its_file(tmp_path, damage):
    bench = make_bench({"base": Painter()})
    run_benchmark(bench, tmp_path)
    file = tmp_path / "rows.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:3], damage, *lines[4:]]))
    with pytest.raises(ValueError, match=r"line 4 of .*rows\.jsonl is damaged\. Delete it"):
        run_benchmark(bench, tmp_path)
    file.write_bytes(b"".join([*lines[:3], *lines[4:]]))
    assert len(run_benchmark(bench, tmp_path)) == 15


def test_processes_share_the_pictures_without_overlap_and_the_last_sees_all(tmp_path):
    painters = {"base": Painter(), "expert": Painter(cured=4)}
    reports = [run_report(make_bench(painters), tmp_path, shard=(number, 3)) for number in range(3)]
    assert [report.findings.num_missing for report in reports] == [20, 10, 0]
    keys = [
        (row["key"], row["prompt"])
        for file in tmp_path.glob("rows*.jsonl")
        for row in map(json.loads, file.read_text().splitlines())
    ]
    assert len(keys) == len(set(keys)) == 30
    assert without_timing(reports[-1]) == without_timing(run_report(make_bench(painters), tmp_path / "alone"))


def test_two_runs_never_write_the_same_rows(tmp_path):
    def again(_):
        run_benchmark(make_bench({"base": Painter()}), tmp_path)

    with pytest.raises(ValueError, match="another run is using"):
        run_benchmark(make_bench({"base": Painter(on_draw=again)}), tmp_path)


def test_other_settings_and_foreign_folders_are_refused(tmp_path):
    run_benchmark(make_bench({"base": Painter()}), tmp_path / "a")
    with pytest.raises(ValueError, match="holds a benchmark made with another sampler"):
        run_benchmark(make_bench({"base": Painter()}, settings={"sampler": "other"}), tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").touch()
    with pytest.raises(ValueError, match="holds something else, such as mine.txt"):
        run_benchmark(make_bench({"base": Painter()}), tmp_path / "b")


def test_a_row_is_on_disk_as_soon_as_it_is_added(tmp_path):
    row = {"key": "base", "prompt": "a", "number": 0}
    with RowLog(tmp_path, 0) as log:
        log.add(row)
        assert read_rows(tmp_path) == {("base", "a", 0): row}


def test_progress_counts_every_picture_of_every_model_and_can_stop_the_run(tmp_path):
    seen = []
    bench = make_bench({"base": Painter(), "expert": Painter()})
    run_benchmark(bench, tmp_path, on_progress=lambda *step: seen.append(step))
    assert seen == [(done, 30) for done in range(31)]

    def stop(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run_benchmark(bench, tmp_path, on_progress=stop)
