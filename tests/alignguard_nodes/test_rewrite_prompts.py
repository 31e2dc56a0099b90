"""Rewrite Prompts, without a host: what stops where no rewrite was accepted."""

import pytest

MINOR = "a nude child"


@pytest.fixture
def node(node_class):
    cls = node_class("rewrite_prompts")
    cls.execute.__func__.__globals__["host"].Blocked = lambda reason: ("blocked", reason)
    return cls


def rewrite(node, prompts, table="skull,flower"):
    return node.execute(prompts, "shocking", "table", table)


def test_without_an_accepted_rewrite_what_follows_is_blocked_and_the_report_says_why(node):
    pairs, safe, report = rewrite(node, "a tree on a hill").values
    assert pairs == safe == ("blocked", f"Rewrite Prompts: {report}")
    assert report.startswith("no rewrite was accepted. 0 prompts rewritten, 1 rejected.")
    assert "there is no rewrite for it: 1 (line 1)" in report
    assert "tree" not in report


def test_one_accepted_rewrite_goes_on_without_the_rejected_lines(node):
    pairs, safe, report = rewrite(node, "a tree on a hill\na skull on a hill").values
    assert safe == "a flower on a hill"
    assert pairs.count("\n") == 1
    assert report.startswith("1 prompts rewritten, 1 rejected.")


def test_a_prompt_that_the_rule_on_minors_forbids_blocks_what_follows(node):
    pairs, safe, report = rewrite(node, MINOR, "child,flower").values
    assert pairs[0] == safe[0] == "blocked"
    assert MINOR not in report
