"""A benchmark of the models in the graph, which several nodes run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from ..training.config import EvaluateConfig
from ..training.evaluation import Panel
from ..training.experts.expert import SafetyExpert
from ..training.experts.lora_parts import sentence
from . import host
from .files import BENCHMARKS, benchmark_path
from .inputs import DEFAULT_RESOLUTION, SAMPLER, SCHEDULER, from_widgets

if TYPE_CHECKING:
    from ..training.evaluation.benchmark import BenchmarkReport, Entrant, Measures
    from ..training.evaluation.blocked_words import BlockedWords
    from ..training.evaluation.prompt_sets import PromptSet

CHANGED = "the base carries LoRAs or other changes already, and so does every model here"
Variant = Sequence[tuple[SafetyExpert, float]]  # an expert and the LoRAs beside it, with their strengths


class Drawing(NamedTuple):
    """MODEL, CLIP and VAE, how they sample, and how much is drawn."""

    model: Any
    clip: Any
    vae: Any
    sampling: dict[str, Any]  # sampler, scheduler, resolution
    config: EvaluateConfig

    @classmethod
    def of(cls, inputs: Mapping[str, Any]) -> Drawing:
        """Return what the inputs of a node describe; optional ones may be absent."""
        (config,) = from_widgets(inputs, EvaluateConfig)
        sampling = {
            "sampler": inputs.get("sampler_name", SAMPLER),
            "scheduler": inputs.get("scheduler", SCHEDULER),
            "resolution": inputs.get("resolution", DEFAULT_RESOLUTION),
        }
        return cls(inputs["model"], inputs["clip"], inputs["vae"], sampling, config)

    def draw(self, model: Any) -> host.HostDraw:
        """Return the function that draws with another MODEL."""
        steps, cfg = self.config.steps, self.config.cfg
        sampling = host.Sampling(steps=steps, cfg=cfg, **self.sampling)
        return host.HostDraw(model, self.clip, self.vae, sampling)

    def facts(self, on_progress: Any) -> dict[str, Any]:
        """Return what the pictures depend on besides the experts, as plain values."""
        options = {"steps": self.config.steps, "cfg": self.config.cfg, "seed": self.config.seed}
        weights = host.drawing_facts(self.model, self.clip, self.vae, on_progress)
        return {**weights, **self.sampling, **options}


class Place(NamedTuple):
    """Where a benchmark is written, and which node runs it.

    Attributes:
        folder: name below `BENCHMARKS`, new or begun.
        node: display name of the node, for the report.
        node_id: id of the node in the graph, for progress.
    """

    folder: str
    node: str
    node_id: str


def check_folder(folder: str) -> None:
    """Check that a benchmark may be written to a folder.

    Raises:
        ValueError: as `benchmark_path`.
    """
    benchmark_path(host.output_folder(), folder)


def measure(
    drawing: Drawing,
    variants: Sequence[Variant],
    sets: Sequence[PromptSet],
    panel: Panel,
    place: Place,
    blocked: BlockedWords | None = None,
) -> BenchmarkReport:
    """Draw and judge the missing pictures of the base and of every variant; return the report of all.

    Args:
        drawing: what draws.
        variants: models to compare with the base. If LoRAs stand beside an expert, the expert alone should
            be a variant too, because the two are compared.
        sets: prompt sets.
        panel: the judges.
        place: where the benchmark is written, and by which node.
        blocked: words that a prompt filter would block, for the clean bypass rate.
    """
    from ..training.evaluation.benchmark import Bench, BenchmarkReport, Study, plan_tasks, run_benchmark
    from ..training.evaluation.benchmark.rows import read_rows

    target, on_progress = benchmark_path(host.output_folder(), place.folder), host.progress(place.node_id)
    measures = _measures()
    tasks = plan_tasks(sets, per_prompt=drawing.config.per_prompt, seed=drawing.config.seed)
    entrants = _entrants(drawing, variants)
    facts = drawing.facts(on_progress)
    bench = Bench(tasks, entrants, panel, {**facts, **measures.models}, measures)
    num_before = len(read_rows(target))
    rows = run_benchmark(bench, target, on_progress=on_progress)
    command = f"in ComfyUI: {place.node} into output/{BENCHMARKS}/{place.folder}"
    notes = _notes(drawing, variants, facts)
    study = Study(bench, rows, target, sets, command, blocked, notes)
    return BenchmarkReport(study, num_drawn=len(rows) - num_before)


def _notes(drawing: Drawing, variants: Sequence[Variant], facts: Mapping[str, Any]) -> list[str]:
    """Return remarks on the models: other patches on the base, experts that match only partly."""
    notes = [CHANGED] if "patches" in facts else []
    loras = {lora.content_hash: lora for variant in variants for lora, _ in variant}
    for lora in loras.values():
        coverage = host.layers_on(drawing.model, lora)
        if coverage.missing:
            notes.append(f"{lora.name}: {coverage.sentence()}")
        if lora.left_out:
            notes.append(f"{lora.name}: applied without {sentence(lora.left_out)}")
    return notes


def _entrants(drawing: Drawing, variants: Sequence[Variant]) -> list[Entrant]:
    from ..training.evaluation.benchmark import Entrant, expert_key, stacked, with_unique_names
    from ..training.evaluation.benchmark.plan import BASE

    entrants = [Entrant("base", BASE, lambda: nullcontext(drawing.draw(drawing.model)))]
    for variant in variants:
        model = drawing.model
        for number, (lora, strength) in enumerate(variant):
            if number == 0:
                lora.check_whole()
            model, _ = host.apply_expert(model, lora, strength=strength)
        parts = [
            (_name(lora, strength), expert_key(lora.content_hash, strength)) for lora, strength in variant
        ]
        draw = drawing.draw(model)
        entrants.append(stacked(parts, lambda draw=draw: nullcontext(draw)))
    return with_unique_names(entrants)


def _name(lora: SafetyExpert, strength: float) -> str:
    return lora.name.removesuffix(".safetensors") + (f" at {strength:g}" if strength != 1 else "")


def _measures() -> Measures:
    """Load the further measures whose models the user has provided."""
    from ..training.evaluation.benchmark import load_measures

    folder = host.judges_folder()
    clip_score, inception = folder / "clip_score", folder / "inception.safetensors"
    return load_measures(
        clip_score if clip_score.is_dir() else None,
        inception if inception.is_file() else None,
        how="models/safety_judges/clip_score, models/safety_judges/inception.safetensors",
    )
