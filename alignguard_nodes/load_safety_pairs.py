"""Node: Load Safety Pairs."""

import logging
from functools import partial

from comfy_api.latest import io, ui

from ..training.pairs import is_pair_source, load_pairs
from ..training.pairs.coprov2 import images_beside
from ..training.rules.categories import CATEGORIES, normalize_category
from . import host
from .files import PAIRS, pair_sources, pairs_path, source_fingerprint, warning_of_listing
from .inputs import CATEGORY, SafetyPairs, checked, pair_places

ALL = "all"
log = logging.getLogger(__name__)


class LoadSafetyPairs(io.ComfyNode):
    """Read preference pairs from a folder or CSV, and report which rows were left out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardLoadSafetyPairs",
            display_name="Load Safety Pairs",
            category=CATEGORY,
            search_aliases=["dataset", "preference pairs", "coprov2", "dpo data", "alignguard"],
            description="Read pairs of a safe and an unsafe picture to train on. No picture is shown.",
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=pair_sources(pair_places(), is_pair_source),
                    tooltip=f"Pairs in {PAIRS}, which ComfyUI neither lists nor serves, or in its input "
                    "folder: a folder with a pairs.jsonl, the CSV of CoProV2 beside its images, or its image "
                    "folder. The help page shows the formats; press R to refresh the list.",
                ),
                io.Combo.Input(
                    "category",
                    options=[ALL, *CATEGORIES],
                    default=ALL,
                    tooltip="Use only pairs of this category of harm; all uses every pair. An expert should "
                    "learn one category. Pairs without a category are assigned this one.",
                ),
                io.Int.Input(
                    "max_pairs",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip="Use only the first pairs, up to this number. Fewer are faster to encode and "
                    "teach less; 0 uses all.",
                ),
            ],
            outputs=[
                SafetyPairs.Output(
                    display_name="pairs", tooltip="The usable pairs, for training or for calibrating a merge."
                ),
                io.String.Output(
                    display_name="report", tooltip="How many pairs are used, and why other rows are not."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None, category: str | None) -> bool | str:
        return checked(
            (partial(pairs_path, pair_places()), folder),
            (normalize_category, category),  # API prompts may name the user's own categories
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str, category: str = ALL, max_pairs: int = 0) -> str:
        path = pairs_path(pair_places(), folder)
        content = source_fingerprint(path, None if path.is_dir() else images_beside(path))
        return f"{path} {content}"  # pairs name their pictures by path, so moved ones are other pairs

    @classmethod
    def execute(cls, folder: str, category: str, max_pairs: int) -> io.NodeOutput:
        places = pair_places()
        path = pairs_path(places, folder)
        pairs = load_pairs(
            path,
            category=None if category == ALL else normalize_category(category),
            max_pairs=max_pairs,
            on_progress=host.progress(cls.hidden.unique_id),
        )
        report = pairs.report.text()
        if warning := warning_of_listing(places, path):
            log.warning(warning)
            report = f"{warning}\n{report}"
        return io.NodeOutput(pairs, report, ui=ui.PreviewText(report))
