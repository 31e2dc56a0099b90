"""Node: Make Safety Pairs."""

import dataclasses
from typing import Any

from comfy_api.latest import io, ui

from ..training.config import MakeConfig
from ..training.evaluation import RULES
from ..training.pairs import load_pairs
from ..training.rules.categories import CATEGORIES, normalize_category
from . import host
from .files import FolderWatch, new_pairs_path
from .inputs import (
    CATEGORY,
    DEFAULT_RESOLUTION,
    NONE,
    SafetyPairs,
    clip_vision_input,
    config_inputs,
    judge_input,
    panel_of,
    sampling_inputs,
    side_input,
    threshold_input,
)

_WATCH = FolderWatch()  # of this session, as the host's cache is


class MakeSafetyPairs(io.ComfyNode):
    """Draw preference pairs with the model that is to be aligned, and keep what the judge accepts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AlignGuardMakeSafetyPairs",
            display_name="Make Safety Pairs",
            category=CATEGORY,
            description="Draw pairs of an unsafe and a safe picture to train on, into a folder of ComfyUI's "
            "input. Nothing is shown, and a stopped run goes on where it was.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="The base model to be aligned: it should draw its own pairs."
                ),
                io.Clip.Input("clip", tooltip="Encodes the prompts."),
                io.Vae.Input("vae", tooltip="Turns latents into pictures."),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    tooltip="One pair a line: unsafe prompt => safe prompt; or JSON objects with "
                    "unsafe_prompt, safe_prompt and category.",
                ),
                io.Combo.Input(
                    "category",
                    options=list(CATEGORIES),
                    tooltip="What the lines are against that name no category themselves.",
                ),
                io.String.Input(
                    "folder",
                    default="alignguard_pairs/made",
                    tooltip="A new folder below ComfyUI's input. One that was begun with the same settings "
                    "goes on; with other settings it is refused.",
                ),
                *sampling_inputs(),
                judge_input(
                    "judge",
                    "Keeps a pair if it finds the loser unsafe and the winner safe. none keeps all. What the "
                    "judge cannot see is kept and counted.",
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
                    display_name="report", tooltip="What was made, and why others were given up."
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, category: str | None, folder: str | None) -> bool | str:
        try:
            normalize_category(category or CATEGORIES[0])  # None: comes through a link
            if folder is not None:
                new_pairs_path(host.input_folder(), folder)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None, **_: object) -> int:
        return _WATCH.changes(new_pairs_path(host.input_folder(), folder)) if folder else 0

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        prompts: str,
        category: str,
        folder: str,
        sampler_name: str,
        scheduler: str,
        judge: str = NONE,
        threshold: float = 0.0,
        resolution: int = DEFAULT_RESOLUTION,
        clip_vision: Any = None,
        **settings: Any,  # the options of MakeConfig
    ) -> io.NodeOutput:
        from ..training.making.make_pairs import make_pairs
        from ..training.making.prompt_pairs import parse_prompt_pairs

        config = MakeConfig(**settings)
        panel = panel_of([(judge, threshold)], RULES[0], clip_vision)
        read = parse_prompt_pairs(prompts, normalize_category(category))
        target = new_pairs_path(host.input_folder(), folder)
        sampling = {"sampler": sampler_name, "scheduler": scheduler, "resolution": resolution}
        draw = host.HostDraw(model, clip, vae, steps=config.steps, cfg=config.cfg, **sampling)
        on_progress = host.progress(cls.hidden.unique_id)
        facts = {**host.drawing_facts(model, clip, vae, on_progress), **sampling}
        report = make_pairs(
            read.pairs, draw, target, config, panel=panel, facts=facts, on_progress=on_progress
        )
        _WATCH.leave(target)
        text = dataclasses.replace(report, dropped=read.dropped).text()
        if not report.made:
            raise ValueError(
                f"no pair was made in {folder}. Change the prompts, the judge or attempts.\n{text}"
            )
        pairs = load_pairs(target, on_progress=on_progress)
        text += f"\nin input/{target.relative_to(host.input_folder()).as_posix()}: {pairs.report.text()}"
        return io.NodeOutput(pairs, text, ui=ui.PreviewText(text))
