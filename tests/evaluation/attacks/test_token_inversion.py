"""The genetic search on an encoder that is a table, and that nothing but rates comes out of it."""

import json
import logging

import pytest
import torch

from training.config import InversionConfig
from training.evaluation.attacks import Encoder, Outcome, encoder_of, token_inversion_attack
from training.evaluation.attacks.token_inversion import _search, _with_children
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


def attack(targets, *models, text_of=None, categories=("shocking",), **settings):
    made = encoder(text_of) if text_of else encoder()
    return token_inversion_attack(
        targets, made, models, CONFIG, categories=categories, budget=2, judge="the judge", **settings
    )


def test_the_search_finds_planted_tokens():
    found = _search(target_of(5, 17, 2), encoder(), CONFIG, named_generator("x"), lambda generation: None)
    assert found.tolist() == [[START, 5, 17, 2, END, END, END]]


def test_the_search_repeats_itself_and_nears_a_point_that_no_tokens_encode_to():
    target = target_of(5, 17, 2) + 0.7 * torch.randn(TOKENS, WIDTH, generator=named_generator("t"))
    first, again = (
        _search(target, encoder(), CONFIG, named_generator("x"), lambda generation: None) for _ in range(2)
    )
    assert torch.equal(first, again)
    every = torch.cartesian_prod(*[torch.arange(WORDS)] * 3)
    tail = torch.full((len(every), 3), END)
    ids = torch.cat([torch.full((len(every), 1), START), every, tail], dim=1)
    errors = (encoder().encode(ids) - target).square().flatten(1).sum(1)
    found = (encoder().encode(first) - target).square().sum()
    assert float((errors < found - 1e-4).float().mean()) < 0.001  # among the best thousandth of all


def test_children_exchange_tails_and_survivors_stay():
    parents = torch.arange(12).reshape(4, 3)
    config = InversionConfig(free_tokens=3, crossover=1.0)
    made = _with_children(parents, config, torch.Generator().manual_seed(0))
    assert torch.equal(made[:4], parents)
    for one, other in zip(made[4:8], made[8:], strict=True):
        assert {gene % 3 for gene in one.tolist()} == {0, 1, 2}  # every gene in its place
        assert len({gene // 3 for gene in [*one.tolist(), *other.tolist()]}) <= 2
    none = InversionConfig(free_tokens=3, crossover=0.0)
    assert torch.equal(_with_children(parents, none, torch.Generator().manual_seed(0)), parents)


def test_rates_and_nothing_else_come_out(caplog, capsys):
    caplog.set_level(logging.DEBUG)
    drawn, steps = [], []
    report, other = attack(
        [target_of(5, 17, 2), target_of(1, 2, 3)],
        lambda embeds: drawn.append(embeds) or [True, False],
        lambda embeds: [False, False],
        on_progress=lambda *step: steps.append(step),
    )
    torch.testing.assert_close(drawn[0][0], target_of(5, 17, 2))
    assert report.outcomes == (Outcome(1, 2), Outcome(1, 2))
    assert other.outcomes == (Outcome(0, 2), Outcome(0, 2))
    assert report.kind == "adaptive"
    assert report.facts()["adapts_to"] == "the text encoder; the tokens are the same for every expert"
    assert "adaptive (to the text encoder; the tokens are the same for every expert): " in report.report()
    assert steps[-1] == (120, 120)
    told = (
        json.dumps(report.facts())
        + repr(report)
        + report.report()
        + caplog.text
        + "".join(capsys.readouterr())
    )
    assert "w17" not in told
    assert "17" not in told


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


def test_other_text_encoders_than_that_of_sd15_are_refused():
    with pytest.raises(ValueError, match="SD 1.5 only"):
        encoder_of(TextEncoder((None,) * 2, FAMILIES["sdxl"].text_encoders, None))
    with pytest.raises(ValueError, match="SD 1.5 only"):
        encoder_of(TextEncoder((None,), FAMILIES["sd21"].text_encoders, None))


@pytest.mark.parametrize("settings", [{"free_tokens": 0}, {"population": 3}, {"mutation": 1.5}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        InversionConfig(**settings)
