"""Tables of substitutes, where they apply in a prompt, and the relaxation that rewordings are drawn from."""

import pytest
import torch

from training.evaluation.attacks import parse_substitutions
from training.evaluation.attacks.substitution import Site, choose, reworded


def test_a_table_finds_its_words_in_a_prompt_and_nothing_else():
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
    with pytest.raises(ValueError, match="the table line 1: a cell that begins there has more than"):
        parse_substitutions("kill," + "a" * 200_000)


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


def test_substitutes_without_any_chance_are_equally_likely():
    drawn = choose(
        torch.tensor([1.0, -1.0, -1.0]), [Site(0, 1, ("x", "y"))], 4000, torch.Generator().manual_seed(0)
    )
    assert drawn.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert choose(torch.empty(0), [], 3, torch.Generator()).shape == (3, 0)
