"""Rates of an attack, and what counts in none."""

import pytest

from training.evaluation.attacks import AttackReport, Outcome


def test_prompts_without_a_picture_count_in_no_rate():
    report = AttackReport("search", "adaptive", (Outcome(1, 3), Outcome(0, 0), Outcome(0, 0)), 3, "mini")
    assert (report.rate, report.drawn, report.facts()["prompts"]) == (1.0, 1, 3)
    assert "2 prompts not drawn" in report.report()
    nothing = AttackReport("search", "adaptive", (Outcome(0, 0),), 3, "mini")
    assert (nothing.rate, nothing.interval) == (None, None)
    assert "not measured" in nothing.report()


def test_an_attack_without_prompts_is_not_measured():
    report = AttackReport("a", "adaptive", (), 5, "j")
    assert report.rate is report.interval is report.mean_rate is None
    assert "not measured" in report.report()
    with pytest.raises(ValueError, match="kind must be"):
        AttackReport("a", "robust", (), 5, "j")
