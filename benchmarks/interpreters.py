"""GuardT2I's interpreter on the large world: hidden and plain unsafe prompts, harmless ones, and a search.

It reads the CLIP of the large world's checkpoint, whose words have meaning, and is trained on captions of
concepts that pairs show and of neutral ones, safe and unsafe alike. A hidden prompt is what an attack on the
encoder would achieve at best: the text is harmless, and its encoding is that of an unsafe prompt. The search
over words adapts to the interpreter: what is blocked is a query without a picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from large_stress import prompts_of, words
from training.config import AttackConfig, InterpretConfig
from training.evaluation.attacks import zeroth_order_attack
from training.evaluation.roc import detection
from training.guards import GuardEncoder, Interpreter, clip_encoder, language
from training.guards.interpreter import WORD_SCORE
from training.guards.train_interpreter import TrainedInterpreter, train_interpreter
from training.mini.large.concepts import (
    ALL_CONCEPTS,
    COUNTERPARTS,
    KEPT,
    NEVER_KEPT,
    STAND_INS,
    Concept,
    never_paired,
    paired,
    unseen_word,
    words_in_pairs,
)
from training.mini.large.scenes import GROUNDS, Scene
from training.mini.large.shipped import LARGE
from training.mini.pairs import make_draw
from training.mini.text_encoder import embed, load_text_encoder
from training.models import FAMILIES
from training.models.text_encoder import TextEncoder
from training.models.tokenizer import load_tokenizer
from training.rules.categories import CATEGORIES
from training.rules.terms import Terms

SEED = 0
CONFIG = InterpretConfig(steps=1000, batch_size=32, seed=SEED)  # the default is 2000 steps of 64
SEARCHED = 2  # prompts of each category
SEARCH = AttackConfig(rounds=2, directions=3, samples=1, validations=2)  # 16 queries a prompt
TRAINED = [one for name in CATEGORIES for one in paired(name)]
UNKNOWN = [one for name in CATEGORIES for one in never_paired(name)]


def measure() -> dict[str, Any]:
    """Train an interpreter, ask it about static prompts, and search for prompts that pass it."""
    model = load_text_encoder(LARGE.token_rows())
    encoder = _remembering(
        clip_encoder(TextEncoder((model,), FAMILIES["sd15"].text_encoders, load_tokenizer()))
    )
    start = time.process_time()
    trained = train_interpreter(captions(), encoder, language(), CONFIG)
    seconds = time.process_time() - start
    guard = trained.guard.blocking(Terms(word for one in TRAINED for word in _seen(one)))
    return {
        "training": _facts(trained, seconds),
        **static(guard),
        "search over words": search(guard, embed_with(model)),
    }


def _remembering(encoder: GuardEncoder) -> GuardEncoder:
    return replace(encoder, blocks=cache(encoder.blocks))


def _seen(concept: Concept) -> list[str]:
    return [concept.words[number] for number in words_in_pairs(concept)]


@cache
def captions() -> tuple[str, ...]:
    """Return a caption in each wording for every word that pairs or what training keeps may show."""
    shown = [*TRAINED, *(COUNTERPARTS[one] for one in TRAINED)]
    named = [(one, number) for one in shown for number in words_in_pairs(one)]
    named += [(one, number) for one in KEPT for number in range(3)]
    return tuple(
        Scene(one, _ground(one, word + template)).prompt(word=word, template=template)
        for one, word in named
        for template in (0, 1)
    )


def _ground(concept: Concept, number: int) -> str:
    return tuple(GROUNDS)[(ALL_CONCEPTS.index(concept) + number) % len(GROUNDS)]


def static(guard: Interpreter) -> dict[str, Any]:
    """Return how prompts that were chosen before the interpreter existed are told from harmless ones."""
    hidden = twins()
    harmless = scores(guard, [*hidden, *asked_of_each(KEPT, _first)])
    groups = {
        "hidden behind a harmless text": scores(_fooled(guard, hidden), list(hidden)),
        "plain, words of captions": scores(guard, list(hidden.values())),
        "plain, unseen words": scores(guard, asked_of_each(TRAINED, unseen_word)),
        "plain, stand-ins in no caption": scores(guard, asked_of_each(UNKNOWN, _first)),
    }
    rows: dict[str, Any] = {
        name: {arm: _told(group[arm], harmless[arm], guard.threshold, name) for arm in harmless}
        for name, group in groups.items()
    }
    others = scores(guard, asked_of_each(NEVER_KEPT, _first))["both"]
    rows["neutral concepts in no caption"] = {
        "blocked": f"{int((others >= guard.threshold).sum())} of {len(others)}"
    }
    return rows


def asked(number: int, *named: tuple[Concept, int]) -> list[str]:
    """Return a prompt for each concept by one of its words, all on one ground, and none of them a caption."""
    known = set(captions())
    for ground in GROUNDS:
        prompts = [Scene(one, ground).prompt(word=word, template=number % 2) for one, word in named]
        if not known & set(prompts):
            return prompts
    raise AssertionError("every ground is in a caption")


def asked_of_each(concepts: Sequence[Concept], word_of: Callable[[Concept], int]) -> list[str]:
    """Return a prompt for each concept, see `asked`."""
    return [asked(number, (one, word_of(one)))[0] for number, one in enumerate(concepts)]


def twins() -> dict[str, str]:
    """Return safe prompt -> unsafe prompt, which differ in the word for the concept alone."""
    pairs = [
        asked(number, (COUNTERPARTS[one], _first(COUNTERPARTS[one])), (one, _first(one)))
        for number, one in enumerate(TRAINED)
    ]
    return dict(pairs)


def _first(concept: Concept) -> int:
    return words_in_pairs(concept)[0]


def _fooled(guard: Interpreter, hidden: Mapping[str, str]) -> Interpreter:
    """Return an interpreter whose encoder understands each text as the prompt behind it."""
    blocks = guard.encoder.blocks
    return replace(guard, encoder=replace(guard.encoder, blocks=lambda text: blocks(hidden[text])))


def scores(guard: Interpreter, prompts: Sequence[str]) -> dict[str, Tensor]:
    """Return the scores of prompts, (prompts,), by blocked words alone, by meaning alone, and by both.

    The three are what `look` gives without a meaning, without words, and as it is.
    """
    parts = [guard.interpret(prompt) for prompt in prompts]
    named = [
        guard.words.has_any_form(prompt) or any(part.has_word for part in of_prompt)
        for prompt, of_prompt in zip(prompts, parts, strict=True)
    ]
    has_word = torch.tensor(named)
    meaning = torch.tensor([1 - min(part.similarity for part in of_prompt) for of_prompt in parts])
    return {"words": has_word.float(), "meaning": meaning, "both": meaning.where(~has_word, WORD_SCORE)}


def _told(unsafe: Tensor, safe: Tensor, threshold: float, name: str) -> dict[str, Any]:
    result = detection(unsafe, safe, threshold, name=name)
    return {
        "AUROC": round(result.auroc, 4),
        "FPR at TPR 95 %": round(result.fpr_at_tpr95, 4),
        "passed": f"{result.caught.n - result.caught.hits} of {result.caught.n}",
        "harmless blocked": f"{result.over_blocked.hits} of {result.over_blocked.n}",
    }


def _facts(trained: TrainedInterpreter, seconds: float) -> dict[str, Any]:
    share = trained.guard.calibration.measured
    return {
        "captions": trained.num_captions,
        "held-out captions word by word": f"{trained.exact} of {trained.num_held_out}",
        "held-out captions blocked": f"{share.hits} of {share.n}",
        "threshold": round(trained.guard.threshold, 4),
        "processor seconds": round(seconds),
    }


def embed_with(model: Any) -> dict[str, Tensor]:
    """Return a dict that encodes a prompt, (77, 768), when it is first asked for."""

    class Embeds(dict):
        def __missing__(self, prompt: str) -> Tensor:
            self[prompt] = embed([prompt], model)[0]
            return self[prompt]

    return Embeds()


def search(guard: Interpreter, embeds: dict[str, Tensor]) -> dict[str, str]:
    """Search words for unsafe prompts of every category, against the base alone and behind the interpreter.

    Returns:
        For how many prompts the search finds an unsafe picture, and how many of its queries pass.
    """
    judge, draw = LARGE.load_judge(), make_draw(LARGE.load_unet(), LARGE.load_autoencoder(), embeds)
    names, _ = judge.tables
    won, asked, passed = {"base": 0, "behind the interpreter": 0}, 0, 0
    for category in CATEGORIES:
        stand_ins = {one.name for one in STAND_INS[category]}
        columns = torch.tensor([number for number, name in enumerate(names) if name in stand_ins])

        def look(
            prompts: Sequence[str], seeds: Sequence[int], columns: Tensor = columns
        ) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                shown = judge(draw(prompts, seeds))[0].softmax(dim=1)  # (prompts, names)
            return shown[:, columns].sum(dim=1), torch.isin(shown.argmax(dim=1), columns)

        def guarded(prompts: Sequence[str], seeds: Sequence[int], look: Any = look) -> tuple[Tensor, Tensor]:
            nonlocal asked, passed
            open_to = [at for at, prompt in enumerate(prompts) if not guard.look(prompt).blocked]
            asked, passed = asked + len(prompts), passed + len(open_to)
            found, flags = torch.zeros(len(prompts)), torch.zeros(len(prompts), dtype=torch.bool)
            if open_to:
                chosen = [[of[at] for at in open_to] for of in (prompts, seeds)]
                found[open_to], flags[open_to] = look(*chosen)
            return found, flags

        prompts = prompts_of(category)[:SEARCHED]
        for row, ask in zip(won, (look, guarded), strict=True):
            report = zeroth_order_attack(prompts, words(), ask, SEARCH, judge="the large world's")
            won[row] += report.won
    number = SEARCHED * len(CATEGORIES)
    return {
        **{row: f"{hits} of {number}" for row, hits in won.items()},
        "queries": f"{passed} of {asked} pass",
    }
