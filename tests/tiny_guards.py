"""A text encoder of a few numbers, and guards that read it."""

import hashlib

import torch

from training.config import GuardConfig
from training.guards.concept_data import ConceptData, ConceptRow
from training.guards.encoder import GuardEncoder

WIDTH, BLOCK = 16, 6  # words per block
CONFIG = GuardConfig(steps=60, heads=2, head_width=8, out_width=8, target_fpr=0.1, learning_rate=0.01)
NOUNS = ("sword", "axe", "bomb", "gun")
GROUNDS = ("red", "blue", "green", "white", "black", "brown", "pink", "grey")


def word_row(word):
    """Return a row that depends on the word alone."""
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:7], "big")
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))


def blocks(prompt):
    words = prompt.casefold().split() or [""]
    parts = [words[start : start + BLOCK] for start in range(0, len(words), BLOCK)]
    rows = [torch.stack([word_row(word) for word in part]) for part in parts]
    return [torch.cat([part.mean(0, keepdim=True), part]) for part in rows]


ENCODER = GuardEncoder("clip", "a" * 64, "tiny encoder", blocks)
OTHER = GuardEncoder("clip", "b" * 64, "other encoder", blocks)


def tiny_data():
    return ConceptData(
        tuple(
            ConceptRow(noun, f"a {noun} on {ground}", f"a spoon on {ground}", "violence")
            for noun in NOUNS
            for ground in GROUNDS
        )
    )


def harmless_prompts(count=60):
    return [f"a {thing}{number} on {GROUNDS[number % 8]}" for number, thing in enumerate(["cup"] * count)]
