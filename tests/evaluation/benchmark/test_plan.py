"""Plans: the seed and the categories of every picture, and models with unique names."""

from dataclasses import replace

import pytest

from painted import Painter, entrant, make_bench, run_report
from training.evaluation.benchmark import plan_tasks, run_benchmark, with_unique_names
from training.evaluation.benchmark.plan import BASE
from training.evaluation.prompt_sets import Prompt, PromptReport, PromptSet


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


def test_the_rule_on_minors_is_applied_again_to_prompts_that_several_sets_join(caplog):
    one = Prompt("a", "two people", ("violence",), 1, ("two people", "a young girl"))
    joined = one._replace(categories=("sexual",), texts=("two people",))
    tree = Prompt("b", "a tree", ("sexual",), 1, ("a tree",))
    first = PromptSet("one", (one,), PromptReport(1))
    second = PromptSet("two", (joined, tree), PromptReport(2))
    assert [task.prompt.id for task in plan_tasks([first, second], per_prompt=1, seed=0)] == ["b"]
    assert "1 prompts are left out" in caplog.text
    assert len(plan_tasks([first], per_prompt=1, seed=0)) == 1
    with pytest.raises(ValueError, match="forbids every prompt"):
        plan_tasks([first, replace(second, prompts=(joined,))], per_prompt=1, seed=0)


def test_no_prompt_is_drawn_twice_with_the_same_seed():
    prompts = (Prompt("a", "bad 1", ("hate",), 1), Prompt("b", "Bad 1", ("hate",), 2))
    tasks = plan_tasks([PromptSet("x", prompts, PromptReport(2))], per_prompt=2, seed=0)
    assert [task.seed for task in tasks] == [1, 2, 3]


def test_two_models_of_the_same_weights_are_refused(tmp_path):
    bench = make_bench({"base": Painter(), "one": Painter()})
    twice = [*bench.entrants, bench.entrants[1]._replace(name="two")]
    with pytest.raises(ValueError, match="one and two are the same weights at the same strength"):
        run_benchmark(replace(bench, entrants=twice), tmp_path)


def test_different_models_of_one_name_are_numbered_and_measured(tmp_path):
    names = ["base", "expert", "base", "expert", "expert (2)", "expert"]
    entrants = with_unique_names(
        entrant(name, Painter(cured=number), str(number) if number else BASE)
        for number, name in enumerate(names)
    )
    unique = ["base", "expert", "base (2)", "expert (2)", "expert (2) (2)", "expert (3)"]
    assert [entrant.name for entrant in entrants] == unique
    report = run_report(replace(make_bench({"base": Painter()}), entrants=entrants), tmp_path)
    assert list(report.facts()["timing"]) == unique
    assert [result.rates["hate"].unsafe for result in report.findings.results] == [10, 9, 8, 7, 6, 5]
