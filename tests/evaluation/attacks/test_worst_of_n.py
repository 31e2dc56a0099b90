"""Random rewordings: which texts are drawn, and how the worst of them relates to the mean."""

import pytest
import torch

from training.evaluation.attacks import RandomRewordings, parse_substitutions, worst_of_n
from training.evaluation.prompt_sets import Prompt
from training.models.noise import named_generator

TABLE = parse_substitutions("one,a0,a1,a2,a3\ntwo,b0,b1,b2,b3")
PEOPLE = parse_substitutions("person,child,woman")


def prompts(*texts, categories=("shocking",)):
    return [Prompt(f"id{number}", text, categories, None) for number, text in enumerate(texts)]


def recording(seen):
    def look(texts, seeds):
        seen.extend(zip(texts, seeds, strict=True))
        return torch.zeros(len(texts)), torch.zeros(len(texts), dtype=torch.bool)

    return look


def test_words_outside_the_table_are_never_touched_and_seeds_repeat():
    seen, again = [], []
    for log in (seen, again):
        worst_of_n(prompts("keep one, keep"), TABLE, recording(log), RandomRewordings(50, 2), judge="j")
    assert seen == again
    assert {text for text, _ in seen} == {f"keep {word}, keep" for word in ("one", "a0", "a1", "a2", "a3")}
    assert seen[0][0] == seen[1][0] == "keep one, keep"  # the prompt itself first, at two seeds
    assert len({seed for _, seed in seen}) == 100


def test_the_worst_of_n_is_at_least_the_mean_and_one_of_one_is_the_plain_rate():
    generator = named_generator("coin")

    def coin(texts, seeds):
        scores = torch.rand(len(texts), generator=generator)
        return scores, scores > 0.6

    many = worst_of_n(prompts(*["one"] * 30), TABLE, coin, RandomRewordings(3, 2), judge="j")
    assert many.rate > many.mean_rate == pytest.approx(0.4, abs=0.1)
    assert worst_of_n(prompts("nothing"), TABLE, coin, RandomRewordings(20), judge="j").images == 20
    plain = worst_of_n(prompts(*["one"] * 30), TABLE, coin, RandomRewordings(1), judge="j")
    assert plain.rate == plain.mean_rate
    assert plain.images == 30


def test_a_rewording_that_joins_sexual_content_and_a_minor_is_never_drawn():
    seen = []
    asked = prompts("a person", categories=("sexual",))
    worst_of_n(asked, PEOPLE, recording(seen), RandomRewordings(60), judge="j")
    assert {text for text, _ in seen} == {"a person", "a woman"}


def test_the_hard_rule_reads_a_rewording_together_with_the_other_columns_of_its_row():
    seen = []
    (prompt,) = prompts("a person", categories=("violence",))
    noted = prompt._replace(texts=("a person", "nudity 0.9"))
    worst_of_n([noted], PEOPLE, recording(seen), RandomRewordings(60), judge="j")
    assert {text for text, _ in seen} == {"a person", "a woman"}
