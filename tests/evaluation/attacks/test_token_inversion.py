"""The genetic search on an encoder that is a table, and that nothing but rates comes out of it."""

import json
import logging
from dataclasses import replace

import pytest
import torch

from training.config import InversionConfig
from training.evaluation.attacks import (
    Encoder,
    ModelUnderTest,
    Outcome,
    PushedPrompts,
    encoder_of,
    token_inversion_attack,
)
from training.evaluation.attacks.token_inversion import crossed_over
from training.models import FAMILIES
from training.models.noise import named_generator
from training.models.text_encoder import TextEncoder

TOKENS, WIDTH, WORDS = 7, 4, 30
START, END = 30, 31
ROWS = torch.randn(WORDS + 2, WIDTH, generator=torch.Generator().manual_seed(0))
PLACES = torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
CONFIG = InversionConfig(free_tokens=3, population=60, generations=60)


def encoder(text_of=lambda ids: " ".join(f"w{number}" for number in ids)):
    return Encoder(lambda ids: ROWS[ids] + PLACES, text_of, torch.arange(WORDS), (START, END))


def target_of(*words):
    ids = torch.tensor([[START, *words, *[END] * (TOKENS - 1 - len(words))]])
    return encoder().encode(ids)[0]


def attack(targets, *judged, text_of=None, categories=("shocking",), config=CONFIG, ids_of=None, **settings):
    attacked = (encoder(text_of) if text_of else encoder())._replace(ids_of=ids_of)
    models = [ModelUnderTest(is_unsafe) for is_unsafe in judged]
    pushed = PushedPrompts(dict(enumerate(targets)), categories)
    return token_inversion_attack(pushed, attacked, models, config, budget=2, judge="the judge", **settings)


def nearest(target):
    """Return the encoding of the tokens that are found, (tokens, width)."""
    drawn = []
    attack([target], lambda embeds: drawn.append(embeds) or [False])
    return drawn[0][0]


def test_the_search_finds_planted_tokens():
    assert torch.equal(nearest(target_of(5, 17, 2)), target_of(5, 17, 2))


def test_the_search_is_repeatable_and_approaches_a_point_that_no_tokens_encode_to():
    target = target_of(5, 17, 2) + 0.7 * torch.randn(TOKENS, WIDTH, generator=named_generator("t"))
    first, again = nearest(target), nearest(target)
    assert torch.equal(first, again)
    every = torch.cartesian_prod(*[torch.arange(WORDS)] * 3)
    tail = torch.full((len(every), 3), END)
    ids = torch.cat([torch.full((len(every), 1), START), every, tail], dim=1)
    errors = (encoder().encode(ids) - target).square().flatten(1).sum(1)
    error = (first - target).square().sum()
    assert float((errors < error - 1e-4).float().mean()) < 0.001  # among the best thousandth of all


def test_children_exchange_tails_and_survivors_stay():
    parents = torch.arange(12).reshape(4, 3)
    family = crossed_over(parents, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(family[:4], parents)
    for child, sibling in zip(family[4:8], family[8:], strict=True):
        assert {gene % 3 for gene in child.tolist()} == {0, 1, 2}  # every gene in its place
        assert len({gene // 3 for gene in [*child.tolist(), *sibling.tolist()]}) <= 2
    assert torch.equal(crossed_over(parents, 0.0, torch.Generator().manual_seed(0)), parents)


def test_only_rates_come_out(caplog, capsys):
    caplog.set_level(logging.DEBUG)
    drawn, steps = [], []
    report, safe_report = attack(
        [target_of(5, 17, 2), target_of(1, 2, 3)],
        lambda embeds: drawn.append(embeds) or [True, False],
        lambda embeds: [False, False],
        on_progress=lambda *step: steps.append(step),
    )
    torch.testing.assert_close(drawn[0][0], target_of(5, 17, 2))
    assert report.outcomes == (Outcome(1, 2), Outcome(1, 2))
    assert safe_report.outcomes == (Outcome(0, 2), Outcome(0, 2))
    assert report.kind == "adaptive"
    assert report.facts()["adapts_to"] == "the text encoder; the tokens are the same for every expert"
    assert "adaptive (to the text encoder; the tokens are the same for every expert): " in report.report()
    assert steps[-1] == (120, 120)
    texts = [json.dumps(report.facts()), repr(report), report.report(), caplog.text, *capsys.readouterr()]
    assert "w17" not in "".join(texts)
    assert "17" not in "".join(texts)


def test_tokens_that_join_sexual_content_and_a_minor_are_never_drawn_with():
    drawn = []
    (report,) = attack(
        [target_of(5, 17, 2)],
        lambda embeds: drawn.append(embeds) or [True],
        text_of=lambda ids: "a child",
        categories=("sexual",),
    )
    assert drawn == []
    assert report.outcomes == (Outcome(0, 0),)


def test_text_encoders_other_than_that_of_sd15_are_refused():
    with pytest.raises(ValueError, match="only on the text encoder of SD 1.5"):
        encoder_of(TextEncoder((None,) * 2, FAMILIES["sdxl"].text_encoders, None))
    with pytest.raises(ValueError, match="only on the text encoder of SD 1.5"):
        encoder_of(TextEncoder((None,), FAMILIES["sd21"].text_encoders, None))


@pytest.mark.parametrize("settings", [{"free_tokens": 0}, {"population": 3}, {"mutation": 1.5}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        InversionConfig(**settings)


def test_the_find_is_replayed_as_text_as_the_release_does_and_the_report_says_which():
    drawn, texts = [], []

    def ids_of(text):
        texts.append(text)
        return torch.tensor([[START, 5, 9, *[END] * (TOKENS - 3)]])  # the same letters, other tokens

    replayed = replace(CONFIG, replay="text")
    (report,) = attack(
        [target_of(5, 17, 2)], lambda embeds: drawn.append(embeds) or [True], config=replayed, ids_of=ids_of
    )
    assert torch.equal(drawn[0][0], target_of(5, 9))
    assert len(texts) == 1
    assert report.attack == "Ring-A-Bell's token inversion, its find replayed as text"
    (plain,) = attack([target_of(5, 17, 2)], lambda embeds: [True])
    assert plain.attack == "Ring-A-Bell's token inversion, drawn with the encoding that it found"


def test_a_replayed_text_that_the_rule_on_minors_forbids_is_not_tokenised_again():
    def never(text):
        raise AssertionError("tokenised")

    (report,) = attack(
        [target_of(5, 17, 2)],
        lambda embeds: [True],
        text_of=lambda ids: "a child",
        categories=("sexual",),
        config=replace(CONFIG, replay="text"),
        ids_of=never,
    )
    assert report.drawn == 0


def test_a_replay_as_text_behind_a_guard_of_tokens_is_refused():
    guarded = encoder()._replace(is_blocked=lambda states: torch.zeros(len(states), dtype=torch.bool))
    pushed = PushedPrompts({0: target_of(5)}, ())
    with pytest.raises(ValueError, match="cannot be measured behind a guard"):
        token_inversion_attack(pushed, guarded, [], replace(CONFIG, replay="text"), budget=1, judge="j")
