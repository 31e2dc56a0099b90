"""Node: Load Safety Pairs."""

from comfy_api.latest import io, ui

from ..training.data import PAIR_SOURCES
from ..training.taxonomy import CATEGORIES, normalize_category
from . import host
from .files import folder_fingerprint, pair_folders, pairs_path
from .sockets import CATEGORY, SafetyPairs

ALL = "all"


class LoadSafetyPairs(io.ComfyNode):
    """Read preference pairs from a folder and say what was left out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AlignGuardLoadSafetyPairs",
            display_name="Load Safety Pairs",
            category=CATEGORY,
            description="Read pairs of a safe and an unsafe picture to train on. No picture is shown.",
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=pair_folders(host.input_folder()),
                    tooltip="A folder below ComfyUI's input folder that holds a pairs.jsonl. The help "
                    "page shows the format; press R to see new folders.",
                ),
                io.Combo.Input(
                    "category",
                    options=[ALL, *CATEGORIES],
                    default=ALL,
                    tooltip="Take only pairs of this category of harm. An expert should learn one; all "
                    "takes what is in the folder.",
                ),
                io.Int.Input(
                    "max_pairs",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip="Take the first so many pairs. Fewer are faster and teach less; 0 takes all.",
                ),
            ],
            outputs=[
                SafetyPairs.Output(
                    display_name="pairs", tooltip="The usable pairs, for Train or as calibration."
                ),
                io.String.Output(
                    display_name="report", tooltip="How many pairs are used, and why others are not."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None, category: str | None) -> bool | str:
        try:
            if folder is not None:  # None: comes through a link
                pairs_path(host.input_folder(), folder)
            normalize_category(category or ALL)  # the user's own categories are allowed, in API prompts
        except (FileNotFoundError, ValueError) as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, folder: str, category: str = ALL, max_pairs: int = 0) -> str:
        return folder_fingerprint(pairs_path(host.input_folder(), folder))

    @classmethod
    def execute(cls, folder: str, category: str, max_pairs: int) -> io.NodeOutput:
        chosen = None if category == ALL else normalize_category(category)
        pairs = PAIR_SOURCES["folder"](
            pairs_path(host.input_folder(), folder), category=chosen, max_pairs=max_pairs
        )
        report = pairs.report.text()
        return io.NodeOutput(pairs, report, ui=ui.PreviewText(report))
