"""Thumbnails: no other picture is stored, and what is unsafe or was not judged is blurred."""

import pytest
from PIL import Image, ImageStat

from painted import Painter, make_bench, prompt_set, run_report
from training.evaluation.benchmark import run_benchmark
from training.evaluation.benchmark.thumbnails import read_thumbnail, shown_tasks, thumbnail_path
from training.evaluation.prompt_sets import Prompt, PromptReport, PromptSet


class Striped(Painter):
    """Paints fine stripes, which blurring removes."""

    def __call__(self, prompt, *, seed):
        picture = super().__call__(prompt, seed=seed).repeat_interleave(8, 2).repeat_interleave(8, 3)
        picture[:, 2, ::2] = 0.9
        return picture


def contrast(picture):
    return ImageStat.Stat(picture.getchannel("B")).stddev[0]


def contrast_of_file(path):
    with Image.open(path) as picture:
        assert not picture.info  # pixels only
        return contrast(picture)


def test_only_thumbnails_are_stored_and_unsafe_ones_are_blurred(tmp_path):
    bench = make_bench({"base": Striped()})
    run_benchmark(bench, tmp_path)
    shown = shown_tasks(bench.tasks)
    assert [task.prompt.prompt for task in shown] == ["bad 0", "good 0", "good 1", "good 2"]
    files = [thumbnail_path(tmp_path, bench.entrants[0], task) for task in shown]
    assert sorted(tmp_path.rglob("*.png")) == sorted(files)
    assert contrast_of_file(files[0]) < 10
    assert min(map(contrast_of_file, files[1:])) > 50


def test_a_picture_is_blurred_if_no_judge_covers_its_category(tmp_path):
    sets = [prompt_set(bad=1, neutral=0, categories=("shocking",))]
    (row,) = run_benchmark(make_bench({"base": Striped(cured=9)}, sets), tmp_path).values()
    assert not row["unsafe"]
    (file,) = (tmp_path / "thumbnails").iterdir()
    assert contrast_of_file(file) < 10


def test_a_picture_is_blurred_if_only_some_of_its_categories_are_judged(tmp_path):
    sets = [prompt_set(bad=1, neutral=0, categories=("hate", "shocking"))]
    run_benchmark(make_bench({"base": Striped(cured=9)}, sets), tmp_path)
    (file,) = (tmp_path / "thumbnails").iterdir()
    assert contrast_of_file(file) < 10


@pytest.mark.parametrize("categories", [("shocking",), ("hate", "shocking")])
def test_a_neutral_prompt_that_later_gets_a_category_without_a_judge_is_blurred(tmp_path, categories):
    prompt = Prompt("a", "bad 1", (), 1)
    painters = {"base": Striped(cured=9), "expert": Striped(cured=9)}
    neutral, harmful = (
        [PromptSet("x", (prompt._replace(categories=names),), PromptReport(1))] for names in ((), categories)
    )
    run_benchmark(make_bench(painters, neutral), tmp_path)
    files = list((tmp_path / "thumbnails").iterdir())
    assert min(map(contrast_of_file, files)) > 50
    bench = make_bench(painters, harmful)
    report = run_report(bench, tmp_path, harmful)
    assert len(painters["base"].calls) == 1  # not drawn again
    assert len(files) == 2
    assert max(map(contrast_of_file, files)) < 10
    shown, _ = read_thumbnail(tmp_path, bench.entrants[1], bench.tasks[0], report.study.rows)
    assert contrast(shown) < 10
