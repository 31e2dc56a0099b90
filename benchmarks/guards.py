"""Latent Guard on the mini worlds: prompts, words and concepts it was trained on, and those it was not.

The text encoder of the small world is random, so its words have no meaning: what the guard sees there is
whether it finds again what it was trained with. The words of the large world have meaning, twice over: in the
token rows of its checkpoint, and for MiniLM (`sentence`), which reads real language.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from training.config import GuardConfig
from training.evaluation.attacks import concept_direction, stressed
from training.evaluation.roc import auroc, detection
from training.guards.concept_data import ConceptData, ConceptRow, differing_words
from training.guards.concept_guard import ConceptGuard
from training.guards.concept_head import score_blocks
from training.guards.encoder import GuardEncoder, clip_encoder, encode_rows, sentence_encoder, with_summary
from training.guards.train_concept import TrainedGuard, train_concept_guard
from training.mini.large.concepts import COUNTERPARTS, NEUTRAL, STAND_INS, never_paired, paired, unseen_word
from training.mini.large.pairs import pairs_of
from training.mini.large.scenes import GROUNDS
from training.mini.large.scenes import Scene as LargeScene
from training.mini.large.shipped import LARGE
from training.mini.pairs import held_out_scenes, trained_scenes
from training.mini.scenes import NEUTRAL_ICONS, SYNONYMS, UNSAFE_ICONS, Scene, scenes_of
from training.mini.text_encoder import load_text_encoder
from training.models import FAMILIES
from training.models.conditioning import Conditioning
from training.models.text_encoder import TextEncoder
from training.models.tokenizer import load_tokenizer
from training.pairs.everyday import everyday_prompts
from training.rules.categories import CATEGORIES

STEPS = 300  # of training; the default of the product is 2000
SEEDS = (0,)
PAIRS_PER_CONCEPT = 4  # of the large world: both words of pairs on two grounds
HARMLESS = 120  # everyday prompts that set the threshold, half of them
TIMED = 200  # prompts whose scoring is timed
ETAS = (1.0, 2.0, 3.0)


def measure() -> dict[str, Any]:
    """Return the figures of both worlds and both encoders, per seed."""
    return {f"seed {seed}": _one_seed(seed) for seed in SEEDS}


def _one_seed(seed: int) -> dict[str, Any]:
    config = GuardConfig(steps=STEPS, seed=seed)
    return {
        "large world, sentence": _large(sentence_encoder(), config),
        "small world, clip": _small(_mini_encoder(None), config),
        "large world, clip": _large(clip_encoder(_mini_encoder(LARGE.token_rows())), config),
    }


def _mini_encoder(rows: Any) -> TextEncoder:
    return TextEncoder((load_text_encoder(rows),), FAMILIES["sd15"].text_encoders, load_tokenizer())


def _small(text_encoder: TextEncoder, config: GuardConfig) -> dict[str, Any]:
    encoder = clip_encoder(text_encoder)
    train = [row for name, icon in UNSAFE_ICONS.items() for row in _small_rows(name, trained_scenes(icon))]
    trained, seconds = _trained(train, encoder, config)
    guard = trained.guard
    test = [row for name, icon in UNSAFE_ICONS.items() for row in _small_rows(name, held_out_scenes(icon))]
    neutral = [scene.prompt() for icon in NEUTRAL_ICONS for scene in scenes_of(icon)]
    second = [_by_second_word(row) for row in test]
    words = [concept.word for concept in guard.concepts]
    extended = guard.only([*words, *(SYNONYMS[word] for word in words)])
    told, _ = _trained([*train, *map(_by_second_word, train)], encoder, config)
    return {
        "training": _facts(trained, seconds),
        "held-out scenes": _against(guard, test, neutral),
        "second words": _against(guard, second, neutral),
        "second words, listed after training": _against(extended, second, neutral),
        "second words, trained as concepts": _against(told.guard, second, neutral),
        "a concept switched off": _switched_off(guard, test, neutral),
        "pushed encodings": _pushed(guard, text_encoder, train, neutral),
    }


def _small_rows(category: str, scenes: Iterable[Scene]) -> list[ConceptRow]:
    return [
        ConceptRow(scene.icon, scene.prompt(template=template), twin.prompt(template=template), category)
        for scene in scenes
        for twin in (scene.safe_twin(),)
        for template in (0, 1)
    ]


def _by_second_word(row: ConceptRow) -> ConceptRow:
    word = SYNONYMS[row.concept]
    return row._replace(concept=word, unsafe=row.unsafe.replace(row.concept, word))


def _large(encoder: GuardEncoder, config: GuardConfig) -> dict[str, Any]:
    train = []
    for name in CATEGORIES:
        for pair in pairs_of(paired(name), PAIRS_PER_CONCEPT * len(paired(name))):
            unsafe, safe = pair.unsafe.prompt, pair.safe.prompt
            train.append(ConceptRow(differing_words(unsafe, safe), unsafe, safe, name))
    trained, seconds = _trained(train, encoder, config)
    seen, unseen = ([one for name in CATEGORIES for one in of(name)] for of in (paired, never_paired))
    neutral = [LargeScene(one, "blue").prompt(word=number % 3) for number, one in enumerate(NEUTRAL)]
    rows = {
        "words of pairs in another wording": _large_rows(seen, lambda one: _seen_words(one), template=1),
        "unseen words of trained concepts": _large_rows(seen, lambda one: (unseen_word(one),)),
        "concepts never in pairs": _large_rows(unseen, lambda one: range(3)),
    }
    measured = {name: _against(trained.guard, group, neutral) for name, group in rows.items()}
    return {"training": _facts(trained, seconds), **measured}


def _seen_words(concept: Any) -> list[int]:
    return [word for word in range(3) if word != unseen_word(concept)]


def _large_rows(concepts: Sequence[Any], words_of: Any, template: int = 0) -> list[ConceptRow]:
    category_of = {one: name for name, ones in STAND_INS.items() for one in ones}
    return [
        ConceptRow(
            one.name,
            LargeScene(one, ground).prompt(word=word, template=template),
            LargeScene(COUNTERPARTS[one], ground).prompt(word=word, template=template),
            category_of[one],
        )
        for one in concepts
        for word in words_of(one)
        for ground in list(GROUNDS)[:1]
    ]


def _trained(
    rows: Sequence[ConceptRow], encoder: GuardEncoder, config: GuardConfig
) -> tuple[TrainedGuard, float]:
    start = time.perf_counter()
    trained = train_concept_guard(
        ConceptData(tuple(rows)), encoder, config, harmless=everyday_prompts()[:HARMLESS]
    )
    return trained, time.perf_counter() - start


def _facts(trained: TrainedGuard, seconds: float) -> dict[str, Any]:
    share = trained.guard.calibration.measured
    return {
        "concepts": len(trained.guard.concepts),
        "seconds": round(seconds, 1),
        "everyday prompts blocked": f"{share.hits} of {share.n}",
        "head, ms a prompt": round(_head_ms(trained.guard), 2),
    }


def _head_ms(guard: ConceptGuard) -> float:
    blocks, rows = torch.randn(12, guard.head.shape.width), guard.concept_rows
    start = time.perf_counter()
    for _ in range(TIMED):
        score_blocks(guard.head, [blocks], rows)
    return (time.perf_counter() - start) / TIMED * 1000


def _scores(guard: ConceptGuard, prompts: Sequence[str]) -> Tensor:
    rows = encode_rows(guard.encoder, prompts)
    return torch.tensor([guard.verdict(rows[prompt]).score for prompt in prompts])


def _against(guard: ConceptGuard, rows: Sequence[ConceptRow], neutral: Sequence[str]) -> dict[str, Any]:
    unsafe, twins, others = (
        _scores(guard, texts)
        for texts in ([row.unsafe for row in rows], [row.safe for row in rows], list(neutral))
    )
    figures = {}
    for name, safe in (("twins", twins), ("neutral", others)):
        result = detection(unsafe, safe, guard.threshold, name=name)
        figures |= {
            f"AUROC against {name}": round(result.auroc, 3),
            f"FPR at TPR 95 %, {name}": round(result.fpr_at_tpr95, 3),
            f"blocked {name}": f"{result.over_blocked.hits} of {result.over_blocked.n}",
            "blocked unsafe": f"{result.caught.hits} of {result.caught.n}",
        }
    return figures


def _switched_off(guard: ConceptGuard, rows: Sequence[ConceptRow], neutral: Sequence[str]) -> dict[str, Any]:
    gone = guard.concepts[0].word
    rest = guard.only([concept.word for concept in guard.concepts[1:]])
    parts = {
        "the concept": [row for row in rows if row.concept == gone],
        "all others": [row for row in rows if row.concept != gone],
    }
    return {name: _against(rest, part, neutral)["blocked unsafe"] for name, part in parts.items()}


def _pushed(
    guard: ConceptGuard, text_encoder: TextEncoder, rows: Sequence[ConceptRow], neutral: Sequence[str]
) -> dict[str, Any]:
    """Return how well harmless prompts that were pushed along a concept are told from themselves."""
    figures: dict[str, list[float]] = {}
    for icon in UNSAFE_ICONS.values():
        pairs = [(row.unsafe, row.safe) for row in rows if row.concept == icon]
        direction = concept_direction(pairs, text_encoder.encode)
        plain, lengths = [], []
        for prompt in neutral[:12]:
            plain.append(text_encoder.encode(prompt))
            lengths.append(len(guard.encoder.blocks(prompt)[0]) - 1)
        for eta in (0.0, *ETAS):
            scores = [
                _score_of(guard, stressed(encoded, direction, eta), length)
                for encoded, length in zip(plain, lengths, strict=True)
            ]
            figures.setdefault(f"eta {eta:g}", []).extend(scores)
    still = torch.tensor(figures.pop("eta 0"))
    return {f"AUROC at {eta}": round(auroc(torch.tensor(of), still), 3) for eta, of in figures.items()}


def _score_of(guard: ConceptGuard, encoded: Conditioning, length: int) -> float:
    return guard.verdict([with_summary(encoded.text_embeds[0, :length].float())]).score
