"""Latent Guard's head and loss: the published sizes, the numbers by hand, and a plain loop as the oracle."""

import math

import pytest
import torch
import torch.nn.functional as F

from training.guards.concept_head import ConceptHead, HeadShape, concept_loss, score_blocks
from training.guards.encoder import padded

SHAPE = HeadShape(width=12, heads=3, head_width=4, out_width=5)


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def new_head():
    return ConceptHead.drawn(SHAPE, seeded())


def blocks_of(*lengths):
    return [torch.randn(length, SHAPE.width, generator=seeded(length)) for length in lengths]


def score_of_one(head, block, concept):
    """Return the score of one prompt and one concept, head by head, as the released code computes it."""
    key, value, query = head.key(block), head.value(block), head.query(concept)
    gathered = []
    for number in range(SHAPE.heads):
        part = slice(number * SHAPE.head_width, (number + 1) * SHAPE.head_width)
        weights = (key[:, part] @ query[part] / math.sqrt(SHAPE.head_width)).softmax(dim=0)
        gathered.append(weights @ value[:, part])
    prompt_side, concept_side = head.prompt_out(torch.cat(gathered)), head.concept_out(query)
    return F.cosine_similarity(prompt_side, concept_side, dim=0)


def test_shared_keys_and_values_give_the_scores_of_a_loop_over_pairs():
    head, blocks, concepts = new_head(), blocks_of(4, 9, 6), torch.randn(7, SHAPE.width, generator=seeded(1))
    scores = head(*padded(blocks), concepts)
    looped = torch.stack([torch.stack([score_of_one(head, one, row) for row in concepts]) for one in blocks])
    torch.testing.assert_close(scores, looped, atol=1e-6, rtol=0)  # sums of tens of numbers near 1 in fp32


def test_the_published_sizes_give_the_published_number_of_weights():
    head = ConceptHead(HeadShape(width=768, heads=16, head_width=32, out_width=128))
    assert sum(parameter.numel() for parameter in head.parameters()) == 1_312_513


def test_longer_prompts_in_a_batch_change_no_score():
    head, (short, long), concepts = new_head(), blocks_of(3, 40), torch.eye(SHAPE.width)[:2]
    alone = head(*padded([short]), concepts)
    torch.testing.assert_close(head(*padded([short, long]), concepts)[:1], alone, atol=1e-6, rtol=0)


def test_scores_are_cosines():
    scores = new_head()(*padded(blocks_of(5, 6, 7)), torch.randn(9, SHAPE.width, generator=seeded(2)))
    assert scores.abs().max() <= 1 + 1e-6


def test_the_first_weights_depend_on_the_generator_alone():
    torch.manual_seed(1)
    first = new_head().state_dict()
    torch.manual_seed(2)
    assert all(torch.equal(first[name], value) for name, value in new_head().state_dict().items())


def test_the_loss_of_two_concepts_by_hand():
    unsafe = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    safe = torch.tensor([[0.0, 1.0], [-1.0, 0.5]])
    # rows: prompt 0 over (2, 0) and the worst of the safe prompts (1, 0.5); prompt 1 over (1, 3, 1, 0.5)
    rows = [
        math.log(sum(map(math.exp, (2, 0, 1, 0.5)))) - 2,
        math.log(sum(map(math.exp, (1, 3, 1, 0.5)))) - 3,
    ]
    # columns: concept 0 over unsafe (2, 1) and safe (0, -1); concept 1 over (0, 3) and (1, 0.5)
    columns = [
        math.log(sum(map(math.exp, (2, 1, 0, -1)))) - 2,
        math.log(sum(map(math.exp, (0, 3, 1, 0.5)))) - 3,
    ]
    expected = sum(rows) / 2 + sum(columns) / 2
    assert float(concept_loss(unsafe, safe)) == pytest.approx(expected, abs=1e-6)


def test_without_safe_prompts_the_loss_compares_unsafe_ones_only():
    unsafe = torch.zeros(4, 4)
    assert float(concept_loss(unsafe, None)) == pytest.approx(2 * math.log(4))


def test_a_safe_prompt_that_comes_near_a_concept_raises_the_loss():
    unsafe, safe = 5 * torch.eye(3), torch.zeros(3, 3)
    near = safe.clone()
    near[1, 2] = 4.0
    assert concept_loss(unsafe, near) > concept_loss(unsafe, safe)


def test_scores_do_not_depend_on_the_parts_they_are_computed_in():
    head, blocks = new_head(), blocks_of(*range(2, 152))
    concepts = torch.randn(140, SHAPE.width, generator=seeded(3))
    whole = head(*padded(blocks), concepts)
    torch.testing.assert_close(score_blocks(head, blocks, concepts), whole, atol=1e-6, rtol=0)
