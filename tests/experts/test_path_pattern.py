"""PEFT's expressions choose the layers that PEFT chooses, and a hostile expression cannot run for long."""

import random
import re

import pytest
from peft.utils.other import get_pattern_key

from training.experts.path_pattern import PathPatterns

PATHS = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "up_blocks.3.resnets.1.conv1",
    "mid_block.attentions.0.proj_in",
    "conv_in",
)
WRITTEN = (
    *("to_k", "attn2.to_k", r".*attn2\.to_k", "down_blocks.*to_k", "^down_blocks.0.*", "^conv_in$"),
    *(r"(down|up)_blocks\.\d+\..*", r"attn[12].(to_q|to_k)", "to_(?:k|v)", "[^.]+", r"\w+\.\d{1,2}.*conv\d$"),
    *(r"(.*\.)?proj", ".*?to_k", "attn2|to_k", "x{0,}conv_in", "((co)?nv*_?)*in", "[a-z_]{7}", "(c*)*onv_in"),
)


def peft_matches(expression, path):
    return re.match(rf"(.*\.)?({expression})$", path) is not None


@pytest.mark.parametrize("expression", WRITTEN)
def test_an_expression_chooses_the_layers_that_peft_chooses(expression):
    for path in PATHS:
        assert (get_pattern_key([expression], path) == expression) == peft_matches(expression, path)
        assert (PathPatterns("x", [expression]).first_match(path) == expression) == peft_matches(
            expression, path
        )


def test_the_first_expression_that_matches_is_chosen():
    expressions = ["to_q", "attn2.*", "to_k"]
    assert PathPatterns("x", expressions).first_match(PATHS[0]) == get_pattern_key(expressions, PATHS[0])
    assert PathPatterns("x", expressions).first_match("conv_in") is None


def test_random_expressions_match_as_in_python():
    symbols = ["a", "b", ".", r"\.", "|", "(", ")", "*", "+", "?", "[ab]", "a", "b", "{1,2}"]
    draw, compared = random.Random(0), 0
    while compared < 5_000:
        expression = "".join(draw.choice(symbols) for _ in range(draw.randint(1, 7)))
        try:
            re.compile(expression)
            patterns = PathPatterns("x", [expression])
        except (re.error, ValueError):
            continue
        for path in ("ab", "a.b", "b", "aab.ab"):
            found = patterns.first_match(path) is not None
            assert found == peft_matches(expression, path), (expression, path)
            compared += 1


@pytest.mark.parametrize("expression", ["(a+)+$", "((a*)*)*b", "(((a|a)|(a|a))*)*b", "(.*)*(.*)*x"])
def test_an_expression_that_would_run_for_years_ends_at_once(expression):
    assert PathPatterns("x", [expression]).first_match("a" * 150 + "!") is None


def test_expressions_that_add_up_to_too_much_work_are_refused():
    patterns = PathPatterns("alpha_pattern", [f"(((.*)[a{n % 10}](.*))*)*x{n}" for n in range(500)])
    with pytest.raises(ValueError, match="the expressions of alpha_pattern take too long"):
        patterns.first_match("a1" * 150)


@pytest.mark.parametrize(
    "expression",
    [
        "(",
        "a)",
        "[a",
        "*a",
        "(?=a)b",
        r"(a)\1",
        "(?i)a",
        r"\bto_k",
        "(" * 99 + "a" + ")" * 99,
        "a" * 999 + "*",
    ],
)
def test_an_expression_of_another_kind_is_refused_by_name(expression):
    with pytest.raises(ValueError, match="alpha_pattern has an expression that cannot be used here: '"):
        PathPatterns("alpha_pattern", [expression])
