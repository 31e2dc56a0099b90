"""Node: Load Safety Pairs."""

from comfy_api.latest import io, ui

from ..training.pairs import is_pair_source, load_pairs
from ..training.pairs.coprov2 import images_beside
from ..training.rules.categories import CATEGORIES, normalize_category
from . import host
from .files import pair_sources, pairs_path, source_fingerprint
from .inputs import CATEGORY, SafetyPairs

ALL = "all"


class LoadSafetyPairs(io.ComfyNode):
    """Read preference pairs from a folder or CSV and say what was left out."""

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
                    options=pair_sources(host.input_folder(), is_pair_source),
                    tooltip="Pairs below ComfyUI's input folder: a folder with a pairs.jsonl, CoProV2's CSV "
                    "beside its images, or its image folder. The help page shows the formats; press R to "
                    "see new ones.",
                ),
                io.Combo.Input(
                    "category",
                    options=[ALL, *CATEGORIES],
                    default=ALL,
                    tooltip="Take only pairs of this category of harm. An expert should learn one; all "
                    "takes what is there. Pairs that name no category are taken as of this one.",
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
            hidden=[io.Hidden.unique_id],
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
        path = pairs_path(host.input_folder(), folder)
        return source_fingerprint(path, None if path.is_dir() else images_beside(path))

    @classmethod
    def execute(cls, folder: str, category: str, max_pairs: int) -> io.NodeOutput:
        pairs = load_pairs(
            pairs_path(host.input_folder(), folder),
            category=None if category == ALL else normalize_category(category),
            max_pairs=max_pairs,
            on_progress=host.progress(cls.hidden.unique_id),
        )
        report = pairs.report.text()
        return io.NodeOutput(pairs, report, ui=ui.PreviewText(report))
