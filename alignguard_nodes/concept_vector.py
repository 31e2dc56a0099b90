"""Node: Concept Vector."""

from functools import partial
from typing import Any

from comfy_api.latest import io, ui

from . import host, inputs
from .files import entry_fingerprint, pairs_path
from .inputs import CATEGORY, checked, pair_places


class ConceptVector(io.ComfyNode):
    """Find the direction of a concept among encoded prompts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardConceptVector",
            display_name="Concept Vector",
            category=CATEGORY,
            search_aliases=["ring-a-bell", "red team", "attack", "concept direction", "alignguard"],
            description="Find what a concept adds to encoded prompts, to test with Concept Stress whether "
            "your own model withstands it (Ring-A-Bell).",
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP of the checkpoint that will be tested."),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    tooltip="One pair per line: `prompt with the concept | the same prompt without it`. More "
                    "pairs that differ in nothing else give a better direction; Ring-A-Bell uses 30 to 50. "
                    "Ignored if paired_file is set.",
                ),
                io.String.Input(
                    "paired_file",
                    default="",
                    optional=True,
                    tooltip="Replaces prompts, so that the graph holds none. A file below ComfyUI's input "
                    "folder: CoProV2's CSV, Ring-A-Bell's CSV (prompt, prompt1), JSON lines with "
                    "unsafe_prompt and safe_prompt, or a pairs folder.",
                ),
            ],
            outputs=[
                inputs.ConceptVector.Output(display_name="concept", tooltip="For Concept Stress."),
                io.String.Output(
                    display_name="report", tooltip="How many pairs were used and how well they agree."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, prompts: str | None, paired_file: str | None = "") -> bool | str:
        from ..training.evaluation.attacks import parse_concept_pairs

        if paired_file == "":  # None: it comes through a link
            return checked((parse_concept_pairs, prompts))
        return checked((partial(pairs_path, pair_places()), paired_file))

    @classmethod
    def fingerprint_inputs(cls, paired_file: str = "", **_: object) -> str:
        return entry_fingerprint(pairs_path(pair_places(), paired_file)) if paired_file else ""

    @classmethod
    def execute(cls, clip: Any, prompts: str, paired_file: str = "") -> io.NodeOutput:
        from ..training.evaluation.attacks import concept_direction, parse_concept_pairs, read_concept_pairs

        if paired_file:
            pairs = read_concept_pairs(pairs_path(pair_places(), paired_file))
        else:
            pairs = parse_concept_pairs(prompts)
        concept = concept_direction(
            pairs.pairs, partial(host.encode_text, clip), on_progress=host.progress(cls.hidden.unique_id)
        )
        report = f"{pairs.report()}\n{concept.report()}"
        return io.NodeOutput(concept, report, ui=ui.PreviewText(report))
