"""The numbers of a benchmark, computed from its rows once; every form of the report shows the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...system.picture_looks import remarks_on_looks
from ..blocked_words import BlockedWords
from ..measures.fid import frechet_distance
from ..measures.sentences import SentenceModel
from ..prompt_sets import PromptSet
from .features import read_features
from .genbreak import meaning_diversity, word_diversity
from .guarded import PromptFilter, guarded_rows
from .plan import BASE
from .rows import LOOK, Rows
from .run import Bench
from .stacks import StackChange, stack_changes
from .summary import Result, count_missing, summarize, summarize_by_judge
from .toxicity import Toxicity, toxicities


@dataclass(frozen=True)
class Study:
    """A benchmark that was run, wholly or in part.

    Attributes:
        bench: what was measured, and with what.
        rows: rows of `run_benchmark`.
        folder: folder of the benchmark.
        sets: the prompt sets of its tasks.
        command: how to repeat it.
        blocked: words that a prompt filter would block, for the clean bypass rate; None: no list.
        notes: remarks on the models, such as an expert that matches only partly.
        guard: stands in front of every model in a second set of results; None: there is none.
    """

    bench: Bench
    rows: Rows
    folder: Path
    sets: Sequence[PromptSet]
    command: str
    blocked: BlockedWords | None = None
    notes: Sequence[str] = ()
    guard: PromptFilter | None = None


class Diversity(NamedTuple):
    """How much the prompts of a set differ.

    Attributes:
        words: see `word_diversity`; None for fewer than two prompts.
        meaning: see `meaning_diversity`; None: no sentence model, or fewer than two prompts.
        model: name of the sentence model; None: not installed.
    """

    words: float | None
    meaning: float | None = None
    model: str | None = None


@dataclass(frozen=True)
class Findings:
    """The results of a benchmark as numbers.

    Attributes:
        results: of each model, the base first; then of each model behind the guard, if there is one.
        by_judge: label of a judge -> the results by its verdicts alone; empty for a single judge.
        stacks: how LoRAs beside an expert change its safety.
        toxicities: toxicity of each model on unsafe prompts.
        diversities: diversity of each prompt set, in order.
        notes: those of the study, and on models all of whose pictures are black, white or equal.
        num_missing: pictures not drawn yet, because a run was stopped or another process draws them.
    """

    results: list[Result]
    by_judge: dict[str, list[Result]]
    stacks: list[StackChange]
    toxicities: list[Toxicity]
    diversities: list[Diversity]
    num_missing: int
    notes: Sequence[str] = ()


def compute_findings(study: Study) -> Findings:
    """Compute the results of a benchmark."""
    bench, rows = study.bench, study.rows
    tasks, entrants, covered = bench.tasks, bench.entrants, bench.panel.categories
    results = summarize(rows, tasks, entrants, covered)
    results = [dataclasses.replace(result, fid=_fid(study, result.key)) for result in results]
    if study.guard is not None:  # compared with the base as it is, without the guard
        behind = [study.guard.behind(entrant) for entrant in entrants]
        all_rows = {**rows, **guarded_rows(rows, tasks, entrants, study.guard)}
        results += summarize(all_rows, tasks, behind, covered)
    return Findings(
        results=results,
        by_judge=summarize_by_judge(rows, tasks, entrants, bench.panel),
        stacks=stack_changes(rows, tasks, entrants, covered),
        toxicities=toxicities(rows, tasks, entrants, covered, (study.blocked, study.guard)),
        diversities=[_diversity(prompts, bench.measures.sentences) for prompts in study.sets],
        num_missing=count_missing(rows, tasks, entrants),
        notes=[*study.notes, *_looks(study)],
    )


def _looks(study: Study) -> list[str]:
    """Return a remark on each model that drew only black, only white or only equal pictures."""
    remarks: list[str] = []
    for entrant in study.bench.entrants:
        keys = (task.row_key(entrant.key) for task in study.bench.tasks)
        rows = [study.rows[key] for key in keys if key in study.rows]
        if all(LOOK in row for row in rows):
            remarks += remarks_on_looks((row[LOOK] for row in rows), entrant.name)
    return remarks


def _fid(study: Study, key: str) -> float | None:
    """Return the FID of a model's neutral pictures against the base's; None: not measured."""
    if key == BASE or study.bench.measures.features is None:
        return None
    base, model = (read_features(study.folder, _feature_places(study, name)) for name in (BASE, key))
    return frechet_distance(base, model)


def _feature_places(study: Study, key: str) -> list[tuple[int, int]]:
    benign = (task.row_key(key) for task in study.bench.tasks if task.is_benign)
    rows = (study.rows.get(row_key, {}) for row_key in benign)
    return [row["features"] for row in rows if "features" in row]


def _diversity(prompt_set: PromptSet, sentences: SentenceModel | None) -> Diversity:
    texts = list(dict.fromkeys(prompt.prompt for prompt in prompt_set.prompts))
    if sentences is None:
        return Diversity(word_diversity(texts))
    meaning = meaning_diversity(sentences.embed(texts)) if texts else None
    return Diversity(word_diversity(texts), meaning, sentences.name)
