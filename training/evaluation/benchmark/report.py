"""What a benchmark found: as plain values, as text, as a picture, and as one page to pass on."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from ...system.work_folder import write_whole
from ..blocked_words import BlockedWords
from ..measures.fid import ENOUGH, frechet_distance
from ..measures.sentences import SentenceModel
from ..prompt_sets import STATIC, PromptSet, groups_of
from ..statistics import FEWEST
from .comparisons import StackChange, results_apart, stack_changes
from .genbreak import THRESHOLD, meaning_diversity, word_diversity
from .page import build_page
from .page_picture import Thumbnail, draw_page
from .plan import BASE, Entrant, Task
from .rows import JUDGES, Key, read_features
from .run import Bench
from .summary import SEEN_UNSAFE, Result, missing_rows, summarize, unseen_prompts
from .tables import diversity_text, kept_line, rate_lines, time_line
from .thumbnails import shown_tasks, thumbnail_path
from .toxicity import NO_BLACKLIST, Toxicity, toxicities, toxicity_meaning

REPORT_JSON, REPORT_PAGE, REPORT_PICTURE = "report.json", "report.html", "report.png"
MEANING = "unsafe: the judge flags the picture, for any category it sees; IP is the share of such pictures"


@dataclass(frozen=True)
class BenchmarkReport:
    """The report of the rows there are.

    Args:
        bench: what was measured.
        rows: of `run_benchmark`.
        folder: of the benchmark.
        sets: where the prompts came from.
        command: how to repeat it.
        not_measured: what -> why.
        sentences: tells how far prompts differ in meaning.
        blocked: words of a filter of prompts, for the clean bypass rate.
        notes: what else is to be known of the models, such as an expert that matches only partly.
    """

    bench: Bench
    rows: Mapping[Key, Mapping[str, Any]]
    folder: Path
    sets: Sequence[PromptSet]
    command: str
    not_measured: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sentences: SentenceModel | None = None
    blocked: BlockedWords | None = None
    notes: Sequence[str] = ()

    @cached_property
    def results(self) -> list[Result]:
        """Of each model, the base first."""
        bench = self.bench
        results = summarize(self.rows, bench.tasks, bench.entrants, bench.panel.categories)
        return [dataclasses.replace(result, fid=self._fid(result.key)) for result in results]

    @cached_property
    def apart(self) -> dict[str, list[Result]]:
        """Of each model by the word of each of several judges, see `results_apart`."""
        bench = self.bench
        return results_apart(self.rows, bench.tasks, bench.entrants, bench.panel)

    @cached_property
    def stacks(self) -> list[StackChange]:
        """What LoRAs beside an expert change of its safety."""
        bench = self.bench
        return stack_changes(self.rows, bench.tasks, bench.entrants, bench.panel.categories)

    @cached_property
    def toxicities(self) -> list[Toxicity]:
        """How toxic the pictures of unsafe prompts are."""
        bench = self.bench
        return toxicities(self.rows, bench.tasks, bench.entrants, bench.panel.categories, self.blocked)

    @cached_property
    def diversities(self) -> list[dict[str, Any]]:
        """How far the prompts of each set differ, see `word_diversity` and `meaning_diversity`."""
        model = self.sentences
        prompts = [list({each.prompt: 0 for each in found.prompts}) for found in self.sets]
        return [
            {
                "word_diversity": word_diversity(own),
                "meaning_diversity": meaning_diversity(model.embed(own)) if model and own else None,
                "sentence_model": model.name if model else None,
            }
            for own in prompts
        ]

    @cached_property
    def missing(self) -> int:
        """Pictures not drawn yet: another process draws them, or the run was stopped."""
        return missing_rows(self.rows, self.bench.tasks, self.bench.entrants)

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values; what depends on the clock stands under `timing` alone."""
        judged = {"judge": self.bench.panel.label(), "kind": STATIC}
        return {
            "version": 1,
            "command": self.command,
            **judged,
            "meaning": MEANING,
            "notes": list(self.notes),
            "settings": dict(self.bench.settings),
            "sets": [
                {"name": each.name, "kind": each.kind, **diversity, **each.report.facts()}
                for each, diversity in zip(self.sets, self.diversities, strict=True)
            ],
            "missing": self.missing,
            "not_measured": self._unmeasured(),
            "rates": [{**rate, **judged} for rate in _rates_facts(self.results)],
            "rates_by_judge": [
                {**rate, "judge": judge, "kind": STATIC}
                for judge, results in self.apart.items()
                for rate in _rates_facts(results)
            ],
            "stacks": [{**stack.facts(), **judged} for stack in self.stacks],
            "toxicity": {
                "meaning": toxicity_meaning(self.blocked),
                "threshold": THRESHOLD,
                "blocked_words": self.blocked.facts() if self.blocked else None,
                "models": [{**each.facts(), **judged} for each in self.toxicities],
            },
            "kept": [
                {"model": result.name, "key": result.key, "what": what, **mean.facts()}
                for result in self.results
                for what, mean in result.kept.items()
            ],
            "in_prompt": [
                {"model": result.name, "key": result.key, "what": what, **mean.facts()}
                for result in self.results
                for what, mean in result.in_prompt.items()
            ],
            "fid": {result.name: result.fid for result in self.results},
            "timing": {result.name: result.seconds for result in self.results},
        }

    def text(self) -> str:
        """Return the report for people who read logs."""
        lines = [self._title(), *self._subtitles(), *rate_lines(self.results)]
        for judge, results in self.apart.items():
            lines += [f"by {judge} alone:", *rate_lines(results)]
        lines += [found.text() for found in (*self.stacks, *self.toxicities)]
        lines += [kept_line(result) for result in self.results if result.kept or result.in_prompt]
        lines.append(time_line(self.results))
        lines += [f"not measured, {what}: {why}" for what, why in self._unmeasured().items()]
        named = zip(self.sets, self.diversities, strict=True)
        lines += [f"{each.name}: {diversity_text(*diversity.values())}" for each, diversity in named]
        return "\n".join([*lines, MEANING, *([toxicity_meaning(self.blocked)] if self.toxicities else [])])

    def picture(self) -> Image.Image:
        """Return the report as one picture; unsafe pictures in it are blurred."""
        shown = shown_tasks(self.bench.tasks)
        columns = [groups_of(task.prompt.categories)[0] for task in shown]
        return draw_page(
            self._title(),
            self._subtitles(),
            self.results,
            columns,
            lambda model, column: self._thumbnail(self.bench.entrants[model], shown[column]),
            self.command,
        )

    def write(self) -> Image.Image:
        """Write the JSON, the page and the picture, each whole, over those of an earlier, shorter run."""
        picture, content = self.picture(), io.BytesIO()
        picture.save(content, format="PNG")
        write_whole(self.folder / REPORT_PICTURE, content.getvalue())
        write_whole(self.folder / REPORT_JSON, json.dumps(self.facts(), indent=1).encode())
        page = build_page(
            self._title(),
            [*self._subtitles(), *(stack.text() for stack in self.stacks), MEANING],
            self.facts(),
            self.results,
            self.apart,
            shown_tasks(self.bench.tasks),
            lambda model, task: self._thumbnail(self.bench.entrants[model], task),
            self.toxicities,
        )
        write_whole(self.folder / REPORT_PAGE, page.encode())
        return picture

    def _fid(self, key: str) -> float | None:
        """Return the distance of a model's neutral pictures to the base's, where that can be measured."""
        if key == BASE or self.bench.features is None:
            return None
        lots = ([row["features"] for row in self._neutral_rows(each)] for each in (BASE, key))
        return frechet_distance(*(read_features(self.folder, lot) for lot in lots))

    def _neutral_rows(self, key: str) -> list[Mapping[str, Any]]:
        names = [(key, task.prompt.id, task.number) for task in self.bench.tasks if task.is_benign]
        return [self.rows[name] for name in names if "features" in self.rows.get(name, {})]

    def _title(self) -> str:
        experts = len(self.bench.entrants) - 1
        return f"Safety of {self.bench.entrants[0].name} and {experts} expert{'s' * (experts != 1)}"

    def _subtitles(self) -> list[str]:
        names = ", ".join(f"{each.name} ({each.report.kept})" for each in self.sets)
        counts = f"{len(self.bench.tasks)} pictures of each model"
        if self.missing:
            counts += f", {self.missing} of all not drawn yet"
        judged = f"judged by {self.bench.panel.label()}"
        return [judged, f"{counts}; {STATIC} prompts: {names}", *self.notes]

    def _unmeasured(self) -> dict[str, str]:
        seen = ", ".join(self.bench.panel.categories)
        blind = {
            group: f"no judge sees it, only {seen}"
            for group, rate in (self.results[0].rates.items() if not self.missing else ())
            if not rate.n and group != SEEN_UNSAFE
        }
        prompts, unseen, part = unseen_prompts(self.bench.tasks, self.bench.panel.categories)
        if unseen:
            blind["unsafe prompts that no judge sees"] = f"{unseen} of {prompts}, and they are in no rate"
        if part:
            blind["some categories of unsafe prompts"] = (
                f"{part} of {prompts} name more than the judges see, and are unsafe only by what they see"
            )
        experts = self.results[1:]
        if experts and not all(each.kept for each in experts):
            blind["neutral pictures"] = "no neutral prompt was given, or none is drawn yet"
        means = [mean for each in self.results for mean in (*each.kept.values(), *each.in_prompt.values())]
        if any(mean.interval is None for mean in means):
            blind["intervals of some means"] = f"they need {FEWEST} prompts"
        if self.bench.features and any(each.kept and each.fid is None for each in self.results):
            blind["FID"] = f"it needs {ENOUGH} neutral pictures of each model"
        if self.apart and not all(JUDGES in row for row in self.rows.values()):
            blind["each judge alone"] = "an earlier version drew some pictures and kept no judge's own word"
        if any(task.prompt.harmless for task in self.bench.tasks) and not self.bench.measures:
            blind["what stays of the harmless part of unsafe prompts"] = "it is told by CLIPScore"
        if self.toxicities and not self.blocked:
            blind["bypass rate without blocked words"] = NO_BLACKLIST
        return {**blind, **self.not_measured}

    def _thumbnail(self, entrant: Entrant, task: Task) -> Thumbnail | None:
        path = thumbnail_path(self.folder, entrant, task)
        row = self.rows.get((entrant.key, task.prompt.id, task.number))
        if row is None or not path.is_file():
            return None
        return Image.open(io.BytesIO(path.read_bytes())), row["unsafe"]


def _rates_facts(results: Sequence[Result]) -> list[dict[str, Any]]:
    return [
        {"model": result.name, "key": result.key, "group": group, **rate.facts()}
        for result in results
        for group, rate in result.rates.items()
    ]
