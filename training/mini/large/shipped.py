"""The weights of the large world: its judge, and token rows that carry meaning, so that near words are near.

The small world's token rows are random: two nouns in the same sentence have a cosine of 0.24. Here the rows
of common words and of all words of concepts come from a sentence model (all-MiniLM-L6-v2), reduced to its
main directions and stored in 8 bit. A row is a part that all words share and a part of its own; their weights
are chosen so that two nouns in the same sentence have a cosine of 0.6 to 0.95, nearer for nearer words, as in
a trained text encoder.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..judge import NO_ICON, Classifier
from ..shipped import Shipped, TokenRows
from ..text_encoder import TOKEN_SPREAD, WIDTH, drawn
from .concepts import ALL_CONCEPTS
from .scenes import GROUNDS

NAMES = (*(concept.name for concept in ALL_CONCEPTS), NO_ICON)
JUDGE_WIDTHS = (24, 48, 96, 128, 192)
SHARED = 0.66  # share of a row's energy that all words have in common


def new_judge() -> Classifier:
    """Return an untrained judge: which concept a picture shows, and on which ground."""
    return Classifier((NAMES, tuple(GROUNDS)), JUDGE_WIDTHS)


def rows_of_words(stored: Mapping[str, Tensor]) -> TokenRows:
    """Return token ids (n,) and their rows (n, 768), fp16-exact fp32, of the stored meanings.

    Args:
        stored: `ids` (n,) and `meanings` (n, k) int8, centred directions of a sentence model.
    """
    meanings = torch.nn.functional.normalize(stored["meanings"].float(), dim=1)
    directions = torch.linalg.qr(drawn("meaning", (WIDTH, meanings.shape[1]), 1.0).double()).Q
    shared = torch.nn.functional.normalize(drawn("shared meaning", (WIDTH,), 1.0).double(), dim=0)
    rows = math.sqrt(SHARED) * shared + math.sqrt(1 - SHARED) * meanings.double() @ directions.T
    return stored["ids"], (TOKEN_SPREAD * math.sqrt(WIDTH) * rows).half().float()


LARGE = Shipped(
    "large", Path(__file__).with_name("weights"), "training.mini.large.recipe", new_judge, rows_of_words
)
