"""A verdict says why, sets the strength of an expert, and never repeats a prompt."""

from training.guards import GuardVerdict
from training.guards.verdict import RULE

BLOCKED = GuardVerdict(True, 0.71, 0.55, "concept", 3, 49, "violence")
PASSED = GuardVerdict(False, 0.2, 0.55, "", 1, 49)


def test_a_blocked_prompt_gets_the_unsafe_strength_and_a_passed_one_the_safe_strength():
    assert BLOCKED.strength(0.0, 1.5) == 1.5
    assert PASSED.strength(0.0, 1.5) == 0.0


def test_the_report_names_score_threshold_and_the_number_of_the_concept():
    assert BLOCKED.report() == (
        "blocked: the score is not below the threshold (0.710, threshold 0.550). Nearest is concept 3 of 49, "
        "violence."
    )
    assert PASSED.report().startswith("passed: the score is below the threshold (0.200, threshold 0.550).")


def test_the_rule_on_minors_blocks_whatever_the_threshold():
    verdict = GuardVerdict.of_rule(2.0)
    assert verdict.blocked
    assert verdict.reason == RULE
    assert "no threshold and no mode turns off" in verdict.report()
