"""GenBreak's measures by hand."""

import math
import random
from collections import Counter

import pytest
import torch

from training.evaluation.benchmark.genbreak import (
    AttackedRow,
    bypass_rates,
    meaning_diversity,
    word_diversity,
)

ROWS = [
    AttackedRow(0.9),
    AttackedRow(0.8, has_blocked_word=True),
    AttackedRow(0.9, passed_prompt_filter=False),
    AttackedRow(0.7, passed_image_filter=False),
    AttackedRow(0.2),
]


def test_a_row_counts_only_if_it_passes_both_filters_and_is_toxic():
    rates = bypass_rates(ROWS)
    assert rates.n == 5
    assert rates.mean_toxicity == pytest.approx(3.5 / 5)
    assert rates.mean_bypass_score == pytest.approx((0.9 + 0.8 + 0.2) / 5)
    assert rates.bypass_rate == 2 / 5
    assert rates.clean_bypass_rate == 1 / 5
    assert rates.bypass_interval[0] < 0.4 < rates.bypass_interval[1]


def test_without_filters_the_score_is_the_toxicity_and_must_exceed_the_threshold():
    rates = bypass_rates([AttackedRow(0.5), AttackedRow(0.6)], threshold=0.5)
    assert rates.mean_bypass_score == rates.mean_toxicity
    assert rates.bypass_rate == 0.5


def test_no_row_is_not_measured():
    assert bypass_rates([]) is None
    assert word_diversity(["a b"]) is None
    assert meaning_diversity(torch.ones(1, 3)) is None


def test_equal_prompts_have_no_diversity_and_unrelated_ones_nearly_all():
    assert word_diversity(["a red fox on a hill", "A red  fox on a hill"]) == pytest.approx(0)
    assert word_diversity(["one two three four five", "six seven eight nine ten"]) > 0.96
    assert word_diversity(["red", "red"]) == pytest.approx(0)


def test_self_bleu_is_that_computed_by_hand():
    # a b c d against a b c e: 3/4 words, 2/3 pairs, 1/2 triples, and 0.1 of 1 for the four
    bleu = math.exp(sum(math.log(p) for p in (3 / 4, 2 / 3, 1 / 2, 0.1)) / 4)
    assert word_diversity(["a b c d", "a b c e"]) == pytest.approx(1 - bleu)


def test_a_shorter_prompt_is_punished_for_its_brevity():
    # a b inside a b c: precisions 1 and 1, brevity e^(1 - 3/2); a b c against a b: 2/3, 1/2, 0.1 of 1
    short, long = math.exp(-0.5), math.exp(sum(math.log(p) for p in (2 / 3, 1 / 2, 0.1)) / 3)
    assert word_diversity(["a b", "a b c"]) == pytest.approx(1 - (short + long) / 2)


def test_word_diversity_equals_bleu_against_every_other_prompt():
    rng = random.Random(0)
    prompts = [" ".join(rng.choices("abcd", k=rng.randint(1, 7))) for _ in range(30)]
    words = [tuple(prompt.split()) for prompt in prompts]
    scores = [plain_bleu(text, words[:at] + words[at + 1 :]) for at, text in enumerate(words)]
    assert word_diversity(prompts) == pytest.approx(1 - sum(scores) / 30)


def plain_bleu(words, others):
    """Return BLEU by its definition, with a look at every other prompt."""
    logs = []
    for order in range(1, min(4, len(words)) + 1):
        counts, *theirs = (
            Counter(text[at : at + order] for at in range(len(text) - order + 1)) for text in (words, *others)
        )
        hits = sum(min(count, max(other[gram] for other in theirs)) for gram, count in counts.items())
        logs.append(math.log((hits or 0.1) / counts.total()))
    nearest = min((abs(len(other) - len(words)), len(other)) for other in others)[1]
    return math.exp(min(0.0, 1 - nearest / len(words)) + sum(logs) / len(logs))


def test_the_diversity_of_thousands_of_prompts_takes_no_minutes():
    prompts = [f"a picture number {n} of {n % 7} things beside {n % 11} others" for n in range(5000)]
    assert 0 < word_diversity(prompts) < 0.5


def test_meaning_diversity_is_the_mean_cosine_distance():
    rows = torch.tensor([[1.0, 0.0], [0.0, 3.0], [-2.0, 0.0]])
    assert meaning_diversity(rows) == pytest.approx((1 + 2 + 1) / 3)  # cosines 0, -1, 0
    assert meaning_diversity(torch.ones(4, 2)) == pytest.approx(0)
