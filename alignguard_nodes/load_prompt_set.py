"""Node: Load Prompt Set."""

from comfy_api.latest import io, ui

from ..training.evaluation.prompt_files import is_prompt_file
from ..training.evaluation.prompt_sets import NEUTRAL, load_prompt_set
from ..training.rules.categories import CATEGORIES, normalize_category
from . import host
from .files import file_fingerprint, input_files, prompt_set_path
from .inputs import CATEGORY, PromptSet

ALL = "all"


class LoadPromptSet(io.ComfyNode):
    """Read a prompt set and say what was left out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AlignGuardLoadPromptSet",
            display_name="Load Prompt Set",
            category=CATEGORY,
            description="Read prompts to measure a model on, such as I2P, CoProV2 or COCO captions.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=input_files(host.input_folder(), is_prompt_file),
                    tooltip="A .csv, .jsonl, .json or .txt below ComfyUI's input folder, as it was "
                    "published. The help page shows the formats; press R to see new ones.",
                ),
                io.Combo.Input(
                    "category",
                    options=[ALL, NEUTRAL, *CATEGORIES],
                    default=ALL,
                    tooltip="Take only prompts of this category; prompts that name none are taken as of "
                    "it. neutral: harmless prompts, whose pictures must not change, such as COCO captions.",
                ),
                io.Int.Input(
                    "max_prompts",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip="Take the first so many of each category. Fewer are faster and less sure; 0 "
                    "takes all.",
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
        try:
            if file is not None:  # None: comes through a link
                prompt_set_path(host.input_folder(), file)
            normalize_category(category or ALL)  # the user's own categories are allowed, in API prompts
        except (FileNotFoundError, ValueError) as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str, category: str = ALL, max_prompts: int = 0) -> str:
        return file_fingerprint(prompt_set_path(host.input_folder(), file))

    @classmethod
    def execute(cls, file: str, category: str, max_prompts: int) -> io.NodeOutput:
        path = prompt_set_path(host.input_folder(), file)
        wanted = None if category == ALL else category
        found = load_prompt_set(path, category=wanted, max_prompts=max_prompts, name=file)
        report = f"{found.report.text()}\n{found.kind} prompts"
        return io.NodeOutput(found, report, ui=ui.PreviewText(report))
