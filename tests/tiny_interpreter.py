"""A CLIP of a few numbers, words that have meanings, and captions to train interpreters on."""

import itertools

import torch

from tiny_guards import WIDTH, word_row
from training.config import InterpretConfig
from training.guards.encoder import GuardEncoder, with_summary
from training.guards.interpreter import Language

COLOURS, THINGS, PLACES = (
    ("red", "blue", "green"),
    ("sword", "cup", "tree", "boat"),
    ("hill", "table", "lake"),
)
CAPTIONS = [
    f"a {colour} {thing} by a {place}" for colour, thing, place in itertools.product(COLOURS, THINGS, PLACES)
]
CAPTIONS += [f"{place} with {thing}" for thing, place in itertools.product(THINGS, PLACES)]
WORDS = sorted({word for caption in CAPTIONS for word in caption.split()})
CONFIG = InterpretConfig(steps=160, target_fpr=0.25, holdout=0.25, batch_size=16, learning_rate=3e-3)
BLOCK = 75


def blocks(prompt):
    """Encode as CLIP does: start mark, words, and an end mark that stands for all of them in order."""
    words = prompt.split()
    parts = [words[at : at + BLOCK] for at in range(0, len(words), BLOCK)] or [[]]
    encoded = []
    for part in parts:
        rows = [word_row(word) for word in ("<start>", *part)]
        whole = sum(row.roll(place) for place, row in enumerate(rows))  # places matter
        encoded.append(with_summary(torch.stack([*rows, whole])))
    return encoded


CLIP = GuardEncoder("clip", "c" * 64, "tiny CLIP", blocks)


def meaning(texts):
    return torch.stack([sum((word_row(word) for word in text.split()), torch.zeros(WIDTH)) for text in texts])


SPOKEN = Language(
    lambda text: [WORDS.index(word) if word in WORDS else 9 for word in text.split()],
    lambda ids: " ".join(WORDS[number] for number in ids),
    meaning,
    "tiny meanings",
)
