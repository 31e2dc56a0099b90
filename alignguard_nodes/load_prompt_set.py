"""Node: Load Prompt Set."""

from functools import partial

from comfy_api.latest import io, ui

from ..training.evaluation.prompt_files import is_prompt_file
from ..training.evaluation.prompt_sets import load_prompt_set
from ..training.pairs.prompts import NEUTRAL
from ..training.rules.categories import CATEGORIES, normalize_category
from . import host
from .files import file_fingerprint, input_files, prompt_set_path
from .inputs import CATEGORY, PromptSet, checked, pair_places

ALL = "all"


class LoadPromptSet(io.ComfyNode):
    """Read a prompt set, and report the rows that were left out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardLoadPromptSet",
            display_name="Load Prompt Set",
            category=CATEGORY,
            search_aliases=["i2p", "coprov2", "coco captions", "prompts from file", "alignguard"],
            description="Read prompts to measure a model on, such as I2P, CoProV2 or COCO captions.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=input_files(pair_places(), is_prompt_file),
                    tooltip="A .csv, .jsonl, .json or .txt below ComfyUI's input folder, in its "
                    "published format; the help page shows the formats. Press R to list new files.",
                ),
                io.Combo.Input(
                    "category",
                    options=[ALL, NEUTRAL, *CATEGORIES],
                    default=ALL,
                    tooltip="Use only prompts of this category; rows without a category count as this "
                    "one. neutral: harmless prompts, whose pictures must not change, such as COCO captions.",
                ),
                io.Int.Input(
                    "max_prompts",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip="Use only this many prompts of each category, the first ones. Fewer are "
                    "faster and give wider intervals; 0 uses all.",
                ),
            ],
            outputs=[
                PromptSet.Output(display_name="prompts", tooltip="For Safety Benchmark."),
                io.String.Output(
                    display_name="report", tooltip="How many prompts are used, and why others are not."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None, category: str | None) -> bool | str:
        return checked(
            (partial(prompt_set_path, pair_places()), file),
            (normalize_category, category),  # API prompts may name categories of the user's own
        )

    @classmethod
    def fingerprint_inputs(cls, file: str, category: str = ALL, max_prompts: int = 0) -> str:
        return file_fingerprint(prompt_set_path(pair_places(), file))

    @classmethod
    def execute(cls, file: str, category: str, max_prompts: int) -> io.NodeOutput:
        path = prompt_set_path(pair_places(), file)
        wanted = None if category == ALL else category
        prompts = load_prompt_set(path, category=wanted, max_prompts=max_prompts, name=file)
        report = f"{prompts.report.text()}\n{prompts.kind} prompts"
        return io.NodeOutput(prompts, report, ui=ui.PreviewText(report))
