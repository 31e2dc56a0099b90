"""A benchmark of the graph's own model, which several nodes run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from ..training.config import EvaluateConfig
from ..training.evaluation import Panel
from ..training.experts.expert import SafetyExpert
from . import host
from .files import BENCHMARKS, benchmark_path

if TYPE_CHECKING:
    from ..training.evaluation.benchmark import BenchmarkReport, Entrant, Measures
    from ..training.evaluation.blocked_words import BlockedWords
    from ..training.evaluation.prompt_sets import PromptSet

CHANGED = "the base carries LoRAs or other changes already, and so does every model here"
Variant = Sequence[tuple[SafetyExpert, float]]  # an expert, the LoRAs beside it, and their strengths


class Drawing(NamedTuple):
    """What draws: MODEL, CLIP and VAE, how it samples, and how much is drawn."""

    model: Any
    clip: Any
    vae: Any
    sampling: dict[str, Any]  # sampler, scheduler, resolution
    config: EvaluateConfig

    def draw(self, model: Any) -> host.HostDraw:
        """Return what draws with a MODEL, the rest being the same."""
        steps, cfg = self.config.steps, self.config.cfg
        return host.HostDraw(model, self.clip, self.vae, steps=steps, cfg=cfg, **self.sampling)

    def facts(self, on_progress: Any) -> dict[str, Any]:
        """Return what the pictures depend on besides the experts, as plain values."""
        named = {"steps": self.config.steps, "cfg": self.config.cfg, "seed": self.config.seed}
        weights = host.drawing_facts(self.model, self.clip, self.vae, on_progress)
        return {**weights, **self.sampling, **named}


def check_folder(folder: str | None) -> bool | str:
    """Say whether a benchmark may go to a folder, or why not; None comes through a link, or is not there."""
    try:
        if folder is not None:
            benchmark_path(host.output_folder(), folder)
    except ValueError as error:
        return str(error)
    return True


def measure(
    drawing: Drawing,
    variants: Sequence[Variant],
    sets: Sequence[PromptSet],
    panel: Panel,
    folder: str,
    node: str,
    node_id: str,
    blocked: BlockedWords | None = None,
) -> BenchmarkReport:
    """Draw and judge what is missing of the base and of every variant; return the report of all.

    Args:
        drawing: what draws.
        variants: what is compared with the base; one with LoRAs beside an expert also with the expert alone.
        sets: of prompts.
        panel: who judges.
        folder: name below `BENCHMARKS`, new or begun.
        node: display name of the node, for the report.
        node_id: its id in the graph, for progress.
        blocked: words of a filter of prompts, for the clean bypass rate.
    """
    from ..training.evaluation.benchmark import Bench, BenchmarkReport, plan_tasks, run_benchmark

    target, on_progress = benchmark_path(host.output_folder(), folder), host.progress(node_id)
    measures = _measures()
    tasks = plan_tasks(sets, per_prompt=drawing.config.per_prompt, seed=drawing.config.seed)
    entrants = _entrants(drawing, variants)
    facts = drawing.facts(on_progress)
    settings = {**facts, **measures.models}
    bench = Bench(tasks, entrants, panel, settings, measures.numbers, measures.features)
    rows = run_benchmark(bench, target, on_progress=on_progress)
    command = f"in ComfyUI: {node} into output/{BENCHMARKS}/{folder}"
    given = (target, sets, command, measures.missing, measures.sentences, blocked)
    return BenchmarkReport(bench, rows, *given, _notes(drawing, variants, facts))


def _notes(drawing: Drawing, variants: Sequence[Variant], facts: Mapping[str, Any]) -> list[str]:
    """Return what a reader of the report has to know of the models besides their names."""
    loras = {lora.content_hash: lora for variant in variants for lora, _ in variant}
    found = [(lora.name, host.layers_on(drawing.model, lora)) for lora in loras.values()]
    partly = [f"{name}: {each.sentence()}" for name, each in found if each.missing]
    return [*([CHANGED] if "patches" in facts else []), *partly]


def _entrants(drawing: Drawing, variants: Sequence[Variant]) -> list[Entrant]:
    from ..training.evaluation.benchmark import Entrant, expert_key, stacked, told_apart
    from ..training.evaluation.benchmark.plan import BASE

    entrants = [Entrant("base", BASE, lambda: nullcontext(drawing.draw(drawing.model)))]
    for variant in variants:
        model = drawing.model
        for lora, strength in variant:
            model, _ = host.apply_expert(model, lora, strength=strength)
        parts = [(_name(*each), expert_key(each[0].content_hash, each[1])) for each in variant]
        draw = drawing.draw(model)
        entrants.append(stacked(parts, lambda draw=draw: nullcontext(draw)))
    return told_apart(entrants)


def _name(lora: SafetyExpert, strength: float) -> str:
    return lora.name.removesuffix(".safetensors") + (f" at {strength:g}" if strength != 1 else "")


def _measures() -> Measures:
    """Load the models of further measures, where the user put them."""
    from ..training.evaluation.benchmark import load_measures

    folder = host.judges_folder()
    clip_score, inception = folder / "clip_score", folder / "inception.safetensors"
    return load_measures(
        clip_score if clip_score.is_dir() else None,
        inception if inception.is_file() else None,
        how="models/safety_judges/clip_score, models/safety_judges/inception.safetensors",
    )
