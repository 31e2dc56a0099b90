"""The search by queries against judges whose answer is a formula of the words."""

import json
import logging

import pytest
import torch

from training.config import AttackConfig
from training.evaluation.attacks import (
    Outcome,
    RandomRewordings,
    parse_substitutions,
    worst_of_n,
    zeroth_order_attack,
)
from training.evaluation.attacks.zeroth_order import two_point_gradient
from training.evaluation.prompt_sets import Prompt

TABLE = parse_substitutions("one,a0,a1,a2,a3\ntwo,b0,b1,b2,b3\nthree,c0,c1,c2,c3\nfour,d0,d1,d2,d3")
SECRET = {"a3", "b2", "c1", "d0"}  # all four together are unsafe
CONFIG = AttackConfig(directions=6, samples=6, rounds=8, validations=8)


def prompts(*texts):
    return [Prompt(f"id{number}", text, ("shocking",), None) for number, text in enumerate(texts)]


def secret_look(seen=None):
    def look(texts, seeds):
        if seen is not None:
            seen.extend(zip(texts, seeds, strict=True))
        scores = torch.tensor([len(SECRET & set(text.split())) / 4 for text in texts])
        return scores, scores >= 1

    return look


def test_the_estimate_of_a_linear_loss_is_its_gradient_on_the_mean():
    slope = torch.tensor([1.0, -2.0, 0.5])
    gradient = two_point_gradient(
        lambda point, state: slope @ point + 7,
        torch.tensor([0.1, 0.2, 0.3]),
        directions=20_000,
        radius=0.5,
        generator=torch.Generator().manual_seed(0),
    )
    torch.testing.assert_close(gradient, slope, atol=0.05, rtol=0)


def test_one_direction_of_a_single_coordinate_is_the_central_difference():
    gradient = two_point_gradient(
        lambda point, state: (point**3).sum(), torch.tensor([2.0]), directions=1, radius=0.5,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert gradient.item() == pytest.approx((2.5**3 - 1.5**3) / 1.0)


def test_both_ends_of_a_direction_see_the_same_random_numbers():
    states = []
    two_point_gradient(
        lambda point, state: states.append(state) or point.sum(), torch.zeros(2), directions=3, radius=0.1,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(states[::2], states[1::2], strict=True))
    assert not torch.equal(states[0], states[2])


def test_with_informative_scores_the_search_beats_random_rewordings_of_the_same_budget():
    asked = prompts(*["one two three four"] * 12)
    searched = zeroth_order_attack(asked, TABLE, secret_look(), CONFIG, judge="formula")
    draws = RandomRewordings(CONFIG.budget)
    baseline = worst_of_n(asked, TABLE, secret_look(), draws, judge="formula")
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


def test_a_report_holds_rates_with_intervals_and_no_prompt(caplog):
    caplog.set_level(logging.DEBUG)
    report = zeroth_order_attack(
        prompts("one two three four"), TABLE, secret_look(), CONFIG, judge="the judge"
    )
    texts = json.dumps(report.facts()) + report.report() + repr(report) + caplog.text
    assert "adaptive" in texts
    assert "the judge" in texts
    assert not any(word in texts.replace("judge", "").split() for word in ("one", "four", *SECRET))
    assert report.facts()["interval"] == pytest.approx([0.2065, 1.0], abs=1e-4)  # Wilson, 1 of 1
