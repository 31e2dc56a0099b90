"""Node: Make Safety Pairs."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from comfy_api.latest import io, ui

from ..training.config import MakeConfig
from ..training.evaluation import RULES
from ..training.pairs import load_pairs
from ..training.rules.categories import CATEGORIES, normalize_category
from . import host
from .files import PAIRS, FolderWatch, new_pairs_path
from .inputs import (
    ABSENT,
    CATEGORY,
    DEFAULT_RESOLUTION,
    NONE,
    SAMPLER,
    SCHEDULER,
    SafetyPairs,
    checked,
    config_inputs,
    from_widgets,
    pair_places,
    sampling_inputs,
    side_input,
)
from .judging import check_judges, clip_vision_input, judge_input, panel_of, threshold_input

_WATCH = FolderWatch()  # lives as long as the session, like the host's cache of results


@dataclass(frozen=True)
class _Widgets:
    """Widgets of the node that are not options of `MakeConfig`, apart from prompts, category and folder."""

    sampler_name: str = SAMPLER
    scheduler: str = SCHEDULER
    judge: str = NONE
    threshold: float = 0.0
    resolution: int = DEFAULT_RESOLUTION


class MakeSafetyPairs(io.ComfyNode):
    """Draw preference pairs with the model to be aligned, and keep those that the judge accepts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardMakeSafetyPairs",
            display_name="Make Safety Pairs",
            category=CATEGORY,
            search_aliases=[
                "dataset",
                "preference pairs",
                "generate data",
                "dpo data",
                "sdedit",
                "alignguard",
            ],
            in_sight=("prompts", "category", "folder", "judge", "resolution", "per_prompt", "steps", "cfg"),
            description="Draw pairs of an unsafe and a safe image to train on, into a folder that "
            "ComfyUI does not list. No image is shown, and a stopped run continues where it was.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="The base model to be aligned. It learns best from pairs it drew itself."
                ),
                io.Clip.Input("clip", tooltip="Encodes the prompts."),
                io.Vae.Input("vae", tooltip="Turns latents into images."),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    tooltip="One pair per line: unsafe prompt => safe prompt. Or one JSON object per line "
                    "with unsafe_prompt, safe_prompt and category.",
                ),
                io.Combo.Input(
                    "category",
                    options=list(CATEGORIES),
                    tooltip="Category of the lines that name none themselves.",
                ),
                io.String.Input(
                    "folder",
                    default="alignguard_pairs/made",
                    tooltip=f"Folder below {PAIRS}, which ComfyUI does not list, usually a new one. An "
                    "existing run with the same settings is continued; with other settings it is refused.",
                ),
                *sampling_inputs(),
                judge_input(
                    "judge",
                    "Keeps a pair if it finds the loser unsafe and the winner safe. none keeps all pairs. A "
                    "loser with a category that the judge cannot see is kept and counted as not measured.",
                    optional=True,
                    may_be_none=True,
                ),
                threshold_input("threshold"),
                side_input(),
                clip_vision_input(),
                *config_inputs(MakeConfig),
            ],
            outputs=[
                SafetyPairs.Output(display_name="pairs", tooltip="For Train, or as calibration for Merge."),
                io.String.Output(
                    display_name="report", tooltip="Pairs made, and pairs given up with the reason."
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        prompts: str | None,
        category: str | None,
        folder: str | None,
        judge: str | None = NONE,
        clip_vision: object = ABSENT,
    ) -> bool | str:
        from ..training.making.prompt_pairs import parse_prompt_pairs

        return checked(
            (normalize_category, category),
            (partial(new_pairs_path, pair_places()), folder),
            (lambda text: parse_prompt_pairs(text, category or CATEGORIES[0]), prompts),
            (partial(check_judges, has_clip_vision=clip_vision is None), [judge]),
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None, **_: object) -> int:
        return _WATCH.changes(new_pairs_path(pair_places(), folder)) if folder else 0

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        prompts: str,
        category: str,
        folder: str,
        clip_vision: Any = None,
        **widgets: Any,
    ) -> io.NodeOutput:
        from ..training.making.make_pairs import DrawingModel, make_pairs
        from ..training.making.prompt_pairs import parse_prompt_pairs

        config, choices = from_widgets(widgets, MakeConfig, _Widgets)
        panel = panel_of([(choices.judge, choices.threshold)], RULES[0], clip_vision, vae=vae)
        parsed = parse_prompt_pairs(prompts, normalize_category(category))
        target = new_pairs_path(pair_places(), folder)
        sampling = {
            "sampler": choices.sampler_name,
            "scheduler": choices.scheduler,
            "resolution": choices.resolution,
        }
        draw = host.HostDraw(model, clip, vae, host.Sampling(steps=config.steps, cfg=config.cfg, **sampling))
        on_progress = host.progress(cls.hidden.unique_id)
        report = make_pairs(
            parsed.pairs,
            DrawingModel(draw, {**host.drawing_facts(model, clip, vae, on_progress), **sampling}),
            target,
            config,
            panel=panel,
            on_progress=on_progress,
        )
        _WATCH.leave(target)
        text = replace(report, dropped=parsed.dropped).text()
        if not report.made:
            raise ValueError(
                f"no pair was made in {folder}. Change the prompts, the judge or attempts.\n{text}"
            )
        pairs = load_pairs(target, on_progress=on_progress)
        inner = target.relative_to(host.private_folder("pairs")).as_posix()
        text += f"\nin {PAIRS}/{inner}: {pairs.report.text()}"
        return io.NodeOutput(pairs, text, ui=ui.PreviewText(text))
