"""The large world outside a server: its pairs, its embeddings, and how often a candidate draws what counts.

Experts train from pairs alone, with the everyday prompts that come with the pack. Prompts that hold a word of
any concept of the world are left out, so that what is measured as never seen was never kept either.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from baselines.kept_text import kept_text
from candidates import Candidate, Change, changed, texts
from columns import FIRST_SEED, drawn, users
from large_groups import KEPT_COLUMNS, LargeGroup, concept_groups, counterparts, groups_of, never_kept
from mini_lab import Lab
from training.mini.large.concepts import (
    ALL_CONCEPTS,
    COUNTERPARTS,
    STAND_INS,
    paired,
    unseen_word,
    words_in_pairs,
)
from training.mini.large.pairs import pairs_of, pairs_to_draw
from training.mini.large.scenes import GROUNDS, Scene
from training.mini.large.shipped import LARGE
from training.mini.pairs import PairToDraw, make_draw, prompts_of, slug, write_pairs
from training.mini.recipe.experts import CONFIG
from training.pairs import SafetyPairs, load_pairs
from training.pairs.everyday import Everyday, everyday, everyday_prompts
from training.rules.categories import CATEGORIES

PAIRS_PER_CONCEPT = 10  # both words of pairs on every ground
SEEDS_APART = 10_000  # between the pictures of two seeds
WORDS = {word for concept in ALL_CONCEPTS for word in concept.words}
Counts = dict[str, dict[str, list[int]]]  # column -> category -> [pictures that count, all pictures]


class LargeLab(Lab):
    """The large world."""

    recipe = CONFIG
    unsafe_text = " ".join(  # a word of every concept in pairs; one token each, so that all 49 are read
        concept.words[words_in_pairs(concept)[0]] for name in CATEGORIES for concept in paired(name)
    )
    files = (Path(__file__),)

    def __init__(self, seed_offset: int = 0) -> None:
        super().__init__(LARGE, "large", seed_offset)

    def prompts(self) -> list[str]:
        """Return the prompts of all pairs, of all groups, and of stand-ins by their unseen words."""
        stand_ins = tuple(COUNTERPARTS)
        alone = [
            group for name in CATEGORIES for one in STAND_INS[name] for group in concept_groups(name, (one,))
        ]
        groups = [*groups_of(CATEGORIES), *alone, counterparts(stand_ins, (0,)), never_kept()]
        pairs = pairs_of(stand_ins, PAIRS_PER_CONCEPT * len(stand_ins))
        asked = [prompt for group in groups for prompt in group.prompts]
        unseen = [Scene(one, ground).prompt(word=unseen_word(one)) for one in stand_ins for ground in GROUNDS]
        return [*prompts_of(pairs), *asked, *unseen]

    def pairs(self, category: str) -> SafetyPairs:
        """Return pairs that the base model drew, once.

        Args:
            category: one of the seven, or the name of a stand-in that has an expert of its own.
        """
        folder = self.folder / "pairs" / slug(category)
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            draw = make_draw(self.unet, self.autoencoder, self.embeds)
            with tempfile.TemporaryDirectory(prefix=".drawing_", dir=folder.parent) as unfinished:
                written = Path(unfinished) / "pairs"
                write_pairs(written, category, wanted(category), draw=draw, judge=self.judge)
                with suppress(OSError):  # another process was faster
                    os.replace(written, folder)
        return load_pairs(folder)

    def prompt_pairs(self, category: str) -> list[tuple[str, str]]:
        """Return the unsafe and the safe prompt of each pair of a category."""
        return [(pair.unsafe.prompt, pair.safe.prompt) for pair in wanted(category)]

    def everyday(self, num_kept: int, num_measured: int) -> Everyday:
        """Return the first everyday prompts that hold no word of the world."""
        every = everyday(len(everyday_prompts()), len(everyday_prompts()))
        kept, measured = (tuple(filter(names_no_concept, prompts)) for prompts in every)
        return Everyday(kept[:num_kept], measured[:num_measured])


def wanted(category: str) -> list[PairToDraw]:
    """Return the pairs to draw of a category, or of one stand-in by its name."""
    if category in CATEGORIES:
        return pairs_to_draw(category, len(paired(category)) * PAIRS_PER_CONCEPT)
    return pairs_of([concept for concept in COUNTERPARTS if concept.name == category], PAIRS_PER_CONCEPT)


def names_no_concept(prompt: str) -> bool:
    """Return whether a prompt holds no word of any concept, also not in the plural."""
    found = re.findall("[a-z]+", prompt.lower())
    return not WORDS & {form for word in found for form in (word, word.removesuffix("s"))}


def counts_of(lab: Lab, candidate: Candidate, groups: Iterable[LargeGroup]) -> Counts:
    """Draw groups with a candidate and count their pictures, see `count`."""
    return tally((group, count(lab, candidate, group)) for group in groups)


def tally(counted: Iterable[tuple[LargeGroup, Sequence[bool]]]) -> Counts:
    """Add up which pictures of each group count, by column and category."""
    counts: Counts = {}
    for group, hits in counted:
        before = counts.setdefault(group.column, {}).get(group.category, [0, 0])
        counts[group.column][group.category] = [before[0] + sum(hits), before[1] + len(hits)]
    return counts


def count(
    lab: Lab,
    candidate: Candidate,
    group: LargeGroup,
    *,
    style: Change | None = None,
    push: Callable[[Tensor], Tensor] | None = None,
) -> list[bool]:
    """Draw a group with a candidate; return whether each picture counts, see `LargeGroup.counted`.

    A candidate with an expert per category draws unsafe prompts with the expert of their category, and
    prompts to be kept with every expert in turn.

    Args:
        lab: its UNet is changed while a picture is drawn, and restored.
        candidate: model to draw with.
        group: prompts; the seeds of their pictures do not depend on the candidate.
        style: change of a style LoRA.
        push: changes the encoded prompts, (prompts, 77, 768).
    """
    embeds, first = texts(lab, group.prompts), FIRST_SEED + lab.seed_offset
    embeds = push(embeds) if push else embeds
    hits: list[bool] = []
    for user in users(candidate, group.category):
        with changed(lab.unet, candidate.change(user), style or {}), kept_text(lab.unet):
            safe = candidate.context and candidate.context(user, group.prompts, embeds)
            pictures = drawn(lab, embeds, range(first, first + len(embeds)), candidate.guidance, safe)
        hits += group.counted(lab.judge.answers(pictures))
    return hits


def shares(counts: Counts, base: Counts | None = None) -> dict[str, float]:
    """Return the share of the pictures of each column that count.

    Args:
        counts: of a candidate.
        base: of the base model; columns of prompts to be kept are then relative to its shares.
    """
    own = {column: _share(of_column) for column, of_column in counts.items()}
    if base is None:
        return own
    kept = {column: own[column] / _share(base[column]) for column in KEPT_COLUMNS if column in own}
    return own | kept


def _share(of_column: Mapping[str, Sequence[int]]) -> float:
    hits, total = map(sum, zip(*of_column.values(), strict=True))
    return hits / total
