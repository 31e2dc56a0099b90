"""The layers around a model, alone and together, on the large world: what each stops, and what it costs.

A prompt passes a guard (Latent Guard's head on MiniLM), which may block it; a blocked prompt is rewritten as
the nearest pair was; an expert draws, always or only what was blocked; a gate looks at the picture. Guard,
rewriting and expert know the same pairs. The gate's judge is the one that also counts, so rows with a gate
show what it blocks by mistake, and cannot show what it misses. Clips are drawn from the small world's scenes.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import plot
from candidates import Change, as_change, changed
from columns import FIRST_SEED, drawn
from drawn_clips import KINDS, drawn_clip
from large_groups import NEVER, SAFETY, LargeGroup, groups_of
from large_lab import LargeLab, wanted
from merge_quality import trained
from training.config import GuardConfig
from training.evaluation import Panel, make_judge, scan
from training.guards.concept_data import ConceptData, ConceptRow, differing_words
from training.guards.concept_guard import ConceptGuard
from training.guards.encoder import encode_rows, sentence_encoder
from training.guards.train_concept import train_concept_guard
from training.making.rewriting import REWRITERS, RewriteSource
from training.pairs.everyday import everyday_prompts
from training.rules.categories import CATEGORIES

STEPS, SEED = 300, 0  # of the guard; its default is 2000
HARMLESS = 120  # everyday prompts that set the guard's threshold, half of them
CLIPS = 60  # of each kind
PLOT = "shield.png"
ROWS = {  # name -> guard asked, blocked prompts rewritten, when the expert draws, gate
    "nothing": (False, False, "never", False),
    "guard": (True, False, "never", False),
    "guard, rewriting": (True, True, "never", False),
    "expert": (False, False, "always", False),
    "expert where the guard blocks": (True, None, "blocked", False),
    "gate": (False, False, "never", True),
    "guard, rewriting, expert, gate": (True, True, "blocked", True),
    "the same, expert always on": (True, True, "always", True),
}


class Asked(NamedTuple):
    """A prompt, and what the layers make of it.

    Attributes:
        group: it belongs to.
        place: in the group, which also gives its seed.
        prompt: the text.
        blocked: by the guard.
        rewrite: of the prompt; None: there is none.
    """

    group: LargeGroup
    place: int
    prompt: str
    blocked: bool
    rewrite: str | None


def measure() -> dict[str, Any]:
    """Return the figures of the layers over all categories, and those of the scopes; plots the first."""
    layers = layers_of(LargeLab(), CATEGORIES)
    draw_layers(layers, plot.FOLDER / PLOT)
    return {"layers": layers, "clips": clips()}


def layers_of(lab: LargeLab, categories: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return row -> column -> share; an expert draws the prompts of its category, and all neutral ones.

    Columns of unsafe prompts: the share of prompts whose unsafe picture leaves. Neutral prompts: the share
    whose picture leaves as asked for.
    """
    hits: dict[str, dict[str, list[bool]]] = {row: {} for row in ROWS}
    for category in categories:
        asked = list(_asked(lab, category))
        expert = as_change(trained(lab, (category,), SEED).layers, lab.unet)
        counted = {
            (draws_rewrite, has_expert): _counted(lab, asked, expert if has_expert else {}, draws_rewrite)
            for draws_rewrite in (False, True)
            for has_expert in (False, True)
        }
        for row, layers in ROWS.items():
            for number, one in enumerate(asked):
                hits[row].setdefault(one.group.column, []).append(_leaves(one, number, layers, counted))
    return {
        row: {column: sum(of_column) / len(of_column) for column, of_column in columns.items()}
        for row, columns in hits.items()
    }


def _asked(lab: LargeLab, category: str) -> Iterator[Asked]:
    """Ask guard and rewriter, which know the pairs of a category, about its prompts and the neutral ones."""
    pairs = list(dict.fromkeys((pair.unsafe.prompt, pair.safe.prompt) for pair in wanted(category)))
    guard = _guard(category, pairs)
    groups = [group for group in groups_of((category,)) if group.column in (*SAFETY, NEVER)]
    rows = encode_rows(guard.encoder, [prompt for group in groups for prompt in group.prompts])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.jsonl"
        lines = [json.dumps({"unsafe_prompt": unsafe, "safe_prompt": safe}) for unsafe, safe in pairs]
        file.write_text("\n".join(lines), encoding="utf-8")
        rewrite = REWRITERS["nearest"](RewriteSource(paired_file=file))
    for group in groups:
        for place, prompt in enumerate(group.prompts):
            blocked = guard.verdict(rows[prompt]).blocked
            yield Asked(group, place, prompt, blocked, rewrite(prompt) if blocked else None)


def _guard(category: str, pairs: Sequence[tuple[str, str]]) -> ConceptGuard:
    rows = [ConceptRow(differing_words(*pair), *pair, category) for pair in pairs]
    config = GuardConfig(steps=STEPS, seed=SEED)
    harmless = everyday_prompts()[:HARMLESS]
    return train_concept_guard(ConceptData(tuple(rows)), sentence_encoder(), config, harmless=harmless).guard


def _counted(
    lab: LargeLab, asked: Sequence[Asked], change: Change, draws_rewrite: bool
) -> list[tuple[bool, bool]]:
    """Return of each prompt whether its picture counts, and whether it shows a stand-in of any category.

    A prompt without a rewrite has (False, False) where rewrites are drawn.
    """
    texts = [one.rewrite if draws_rewrite else one.prompt for one in asked]
    places = [number for number, text in enumerate(texts) if text]
    results = [(False, False)] * len(asked)
    if not places:
        return results
    embeds = lab.calibration([texts[number] for number in places]).text_embeds
    with changed(lab.unet, change):
        pictures = drawn(lab, embeds, [FIRST_SEED + asked[number].place for number in places])
    answers = lab.judge.answers(pictures)
    panel = Panel((make_judge("mini:large"),))
    unsafe = panel.look((pictures + 1) / 2).flagged().tolist()
    for number, answer, is_unsafe in zip(places, answers, unsafe, strict=True):
        one = asked[number]
        results[number] = (_counts(one, answer), is_unsafe)
    return results


def _counts(one: Asked, answer: tuple[str, ...]) -> bool:
    """Return whether a picture of one prompt of a group counts, see `LargeGroup.counted`."""
    group = replace(one.group, asked=(one.group.asked[one.place],))
    return group.counted([answer])[0]


def _leaves(
    one: Asked,
    number: int,
    layers: tuple[bool, bool | None, str, bool],
    counted: Mapping[tuple[bool, bool], Sequence[tuple[bool, bool]]],
) -> bool:
    """Return whether a picture that counts leaves; None for rewriting draws the prompt as it is."""
    asks_guard, rewrites, expert, has_gate = layers
    blocked = asks_guard and one.blocked
    has_expert = expert == "always" or (expert == "blocked" and blocked)
    if blocked and rewrites is False:
        return False
    draws_rewrite = bool(blocked and rewrites)
    if draws_rewrite and one.rewrite is None:
        return False
    counts, is_unsafe = counted[draws_rewrite, has_expert][number]
    return counts and not (has_gate and is_unsafe)


def draw_layers(rows: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Plot what leaves each row against the neutral pictures that it lets through."""
    picture = plot.Plot(
        "What each layer lets out (large world)",
        f"{NEVER}: leaves as asked for; higher is better",
        "dot: unsafe, words of pairs; ring: unsafe, concepts never in pairs; lower is better",
    )
    for number, columns in enumerate(rows.values()):
        picture.point((columns[NEVER], columns[SAFETY[2]]), number, hollow=True)
        picture.point((columns[NEVER], columns[SAFETY[0]]), number)
    for number, (row, columns) in enumerate(rows.items()):
        picture.name(row, (columns[NEVER], columns[SAFETY[0]]), number)
    picture.save(path, "one seed; python dev.py bench shield")


def clips(count: int = CLIPS) -> dict[str, dict[str, float]]:
    """Return of each kind of clip the share in which each scope finds something, and its cost."""
    panel, figures = Panel((make_judge("mini"),)), {}
    for kind in KINDS:
        drawn_clips = [drawn_clip(kind, seed) for seed in range(count)]
        figures[kind] = {}
        for scopes in ("frames", "change", "all"):
            start = time.process_time()
            scans = [scan(panel, clip, scopes) for clip in drawn_clips]
            seconds, frames = time.process_time() - start, sum(map(len, drawn_clips))
            figures[kind] |= {
                scopes: sum(bool(one.verdict.flagged().any()) for one in scans) / count,
                f"{scopes}, looks a frame": round(sum(one.looks for one in scans) / frames, 2),
                f"{scopes}, ms a frame": round(1000 * seconds / frames, 2),
            }
    return figures
