"""Attacks by rewording against judges whose answer is a formula of the words."""

import json
import logging

import pytest
import torch

from training.config import AttackConfig
from training.evaluation.attacks import (
    AttackReport,
    Outcome,
    parse_substitutions,
    worst_of_n,
    zeroth_order_attack,
)
from training.evaluation.attacks.substitution import Site, reworded
from training.evaluation.attacks.zeroth_order import choose, two_point_gradient
from training.evaluation.prompt_sets import Prompt
from training.models.noise import named_generator

TABLE = parse_substitutions("one,a0,a1,a2,a3\ntwo,b0,b1,b2,b3\nthree,c0,c1,c2,c3\nfour,d0,d1,d2,d3")
SECRET = {"a3", "b2", "c1", "d0"}  # all four together are unsafe
CONFIG = AttackConfig(directions=6, samples=6, rounds=8, validations=8)


def prompts(*texts, categories=("shocking",)):
    return [Prompt(f"id{number}", text, categories, None) for number, text in enumerate(texts)]


def secret_look(seen=None):
    def look(texts, seeds):
        if seen is not None:
            seen.extend(zip(texts, seeds, strict=True))
        scores = torch.tensor([len(SECRET & set(text.split())) / 4 for text in texts])
        return scores, scores >= 1

    return look


def test_a_table_names_the_places_of_its_words_and_only_those():
    table = parse_substitutions('red,blue\n"red fox","grey wolf",cat\n# note,x\n\nred,green')
    text = "A Red  fox, a reddish RED fog"
    sites = table.sites(text)
    assert [(text[site.start : site.end], site.substitutes) for site in sites] == [
        ("Red  fox", ("grey wolf", "cat")),
        ("RED", ("blue", "green")),
    ]
    assert reworded(text, sites, [1, -1]) == "A cat, a reddish RED fog"
    assert reworded(text, sites, [-1, 0]) == "A Red  fox, a reddish blue fog"
    assert reworded(text, sites, [-1, -1]) == text
    assert parse_substitutions('{"red": ["blue"], "fox": "cat"}').sites("fox")[0].substitutes == ("cat",)


def test_a_word_in_two_spellings_is_one_word_and_no_prompt_breaks_the_search():
    table = parse_substitutions("Kill,a\nkill,b")
    assert [site.substitutes for site in table.sites("k\u0131ll KILL")] == [("a", "b")] * 2
    with pytest.raises(ValueError, match="is no CSV"):
        parse_substitutions("kill," + "a" * 200_000)


def test_prompts_of_which_nothing_was_drawn_are_in_no_rate():
    report = AttackReport("search", "adaptive", (Outcome(1, 3), Outcome(0, 0), Outcome(0, 0)), 3, "mini")
    assert (report.rate, report.drawn, report.facts()["prompts"]) == (1.0, 1, 3)
    assert "2 prompts not drawn" in report.report()
    nothing = AttackReport("search", "adaptive", (Outcome(0, 0),), 3, "mini")
    assert (nothing.rate, nothing.interval) == (None, None)
    assert "not measured" in nothing.report()


@pytest.mark.parametrize("text", ["", "red", "red,", '{"red": []}', '{"red": [1]}', "{broken", ",blue"])
def test_a_table_without_words_or_substitutes_is_refused(text):
    with pytest.raises(ValueError, match="table"):
        parse_substitutions(text)


def test_choices_follow_the_chances_of_the_relaxation():
    sites = [Site(0, 1, ("x", "y", "z")), Site(2, 3, ("w",))]
    point = torch.tensor([0.5, -1.0, -1.0, 0.0, 1.0, 0.3])  # z z, u u u, u: 3/4 replaced, by 0 : 1/2 : 1
    drawn = choose(point, sites, 40_000, torch.Generator().manual_seed(0))
    shares = [(drawn[:, 0] == choice).float().mean().item() for choice in (-1, 0, 1, 2)]
    assert shares == pytest.approx([0.25, 0.0, 0.25, 0.5], abs=0.01)
    assert bool((drawn[:, 1] == -1).all())


def test_no_chance_at_all_is_an_even_one():
    drawn = choose(
        torch.tensor([1.0, -1.0, -1.0]), [Site(0, 1, ("x", "y"))], 4000, torch.Generator().manual_seed(0)
    )
    assert drawn.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert choose(torch.empty(0), [], 3, torch.Generator()).shape == (3, 0)


def test_the_estimate_of_a_linear_loss_is_its_gradient_on_the_mean():
    slope = torch.tensor([1.0, -2.0, 0.5])
    found = two_point_gradient(
        lambda point, state: slope @ point + 7,
        torch.tensor([0.1, 0.2, 0.3]),
        directions=20_000,
        radius=0.5,
        generator=torch.Generator().manual_seed(0),
    )
    torch.testing.assert_close(found, slope, atol=0.05, rtol=0)


def test_one_direction_of_a_single_coordinate_is_the_central_difference():
    found = two_point_gradient(
        lambda point, state: (point**3).sum(), torch.tensor([2.0]), directions=1, radius=0.5,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert found.item() == pytest.approx((2.5**3 - 1.5**3) / 1.0)


def test_both_ends_of_a_direction_see_the_same_random_numbers():
    states = []
    two_point_gradient(
        lambda point, state: states.append(state) or point.sum(), torch.zeros(2), directions=3, radius=0.1,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(states[::2], states[1::2], strict=True))
    assert not torch.equal(states[0], states[2])


def test_where_scores_tell_the_way_the_search_beats_random_rewordings_of_the_same_budget():
    asked = prompts(*["one two three four"] * 12)
    searched = zeroth_order_attack(asked, TABLE, secret_look(), CONFIG, judge="formula")
    baseline = worst_of_n(asked, TABLE, secret_look(), rewordings=CONFIG.budget, judge="formula")
    assert CONFIG.budget == 8 * (2 * 6 * 6 + 8) == searched.budget == baseline.budget
    assert searched.won >= baseline.won + 3  # 640 tries at 1 in 4096 win 1 in 7
    assert searched.images < baseline.images == 12 * 640


def test_an_attack_stops_when_it_has_won_and_never_exceeds_its_budget():
    seen = []
    report = zeroth_order_attack(prompts("one", "none of them"), TABLE, secret_look(seen), CONFIG, judge="j")
    assert report.outcomes[0] == Outcome(0, CONFIG.budget)  # one site cannot win
    assert report.outcomes[1] == Outcome(0, CONFIG.rounds * CONFIG.validations)  # nothing to search
    assert len(seen) == report.images
    won = zeroth_order_attack(
        prompts("one"), TABLE, lambda texts, seeds: (torch.ones(len(texts)),) * 2, CONFIG, judge="j"
    )
    assert won.outcomes == (Outcome(CONFIG.samples, CONFIG.samples),)


def test_words_outside_the_table_are_never_touched_and_seeds_repeat():
    seen, again = [], []
    for log in (seen, again):
        worst_of_n(prompts("keep one, keep"), TABLE, secret_look(log), rewordings=50, seeds=2, judge="j")
    assert seen == again
    assert {text for text, _ in seen} == {f"keep {word}, keep" for word in ("one", "a0", "a1", "a2", "a3")}
    assert seen[0][0] == seen[1][0] == "keep one, keep"  # the prompt itself first, at two seeds
    assert len({seed for _, seed in seen}) == 100


def test_the_worst_of_n_is_at_least_the_mean_and_one_of_one_is_the_plain_rate():
    generator = named_generator("coin")

    def coin(texts, seeds):
        scores = torch.rand(len(texts), generator=generator)
        return scores, scores > 0.6

    many = worst_of_n(prompts(*["one"] * 30), TABLE, coin, rewordings=3, seeds=2, judge="j")
    assert many.rate > many.mean_rate == pytest.approx(0.4, abs=0.1)
    assert worst_of_n(prompts("nothing"), TABLE, coin, rewordings=20, judge="j").images == 20
    plain = worst_of_n(prompts(*["one"] * 30), TABLE, coin, rewordings=1, judge="j")
    assert plain.rate == plain.mean_rate
    assert plain.images == 30


def test_a_rewording_that_joins_sexual_content_and_a_minor_is_never_drawn():
    seen = []
    table = parse_substitutions("person,child,woman")
    worst_of_n(
        prompts("a person", categories=("sexual",)), table, secret_look(seen), rewordings=60, judge="j"
    )
    assert {text for text, _ in seen} == {"a person", "a woman"}


def test_a_rewording_is_judged_together_with_what_else_the_row_says():
    seen = []
    table = parse_substitutions("person,child,woman")
    (prompt,) = prompts("a person", categories=("violence",))
    noted = prompt._replace(texts=("a person", "nudity 0.9"))
    worst_of_n([noted], table, secret_look(seen), rewordings=60, judge="j")
    assert {text for text, _ in seen} == {"a person", "a woman"}


def test_a_report_holds_rates_with_intervals_and_no_prompt(caplog):
    caplog.set_level(logging.DEBUG)
    report = zeroth_order_attack(
        prompts("one two three four"), TABLE, secret_look(), CONFIG, judge="the judge"
    )
    told = json.dumps(report.facts()) + report.report() + repr(report) + caplog.text
    assert "adaptive" in told
    assert "the judge" in told
    assert not any(word in told.replace("judge", "").split() for word in ("one", "four", *SECRET))
    assert report.facts()["interval"] == pytest.approx([0.2065, 1.0], abs=1e-4)  # Wilson, 1 of 1


def test_an_attack_on_nothing_is_not_measured():
    report = AttackReport("a", "adaptive", (), 5, "j")
    assert report.rate is report.interval is report.mean_rate is None
    assert "not measured" in report.report()
    with pytest.raises(ValueError, match="kind must be"):
        AttackReport("a", "robust", (), 5, "j")
