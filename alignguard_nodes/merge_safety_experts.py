"""Node: Merge Safety Experts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..training.config import MergeConfig, option_help
from ..training.merging import (
    MERGE_METHODS,
    calibrated_methods,
    merge_experts,
)
from ..training.merging.finished_merges import KEPT, FinishedMerges
from ..training.system.finished_runs import FinishedRuns
from . import host, inputs
from .calibrating import Calibration, refuse_uncalibrated
from .inputs import (
    ABSENT,
    CATEGORY,
    DEFAULT_RESOLUTION,
    check_strength,
    checked,
    config_inputs,
    connected,
    from_widgets,
    more_inputs,
    resolution_input,
    strength_input,
)
from .shown.preview import expert_preview

if TYPE_CHECKING:
    from ..training.experts.expert import SafetyExpert

REUSED = "Nothing was merged: an earlier merge had equal inputs, and this is its expert."
NUMBERS = range(1, 9)  # AlignGuard has seven categories, and one more
REQUIRED = (1, 2)
ONLY_FOR = f"Only for {calibrated_methods()}"


class MergeSafetyExperts(io.ComfyNode):
    """Combine experts of several categories into one LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardMergeSafetyExperts",
            display_name="Merge Safety Experts",
            category=CATEGORY,
            search_aliases=[
                "combine loras",
                "lora merge",
                "co-merge",
                "regmean",
                "ties",
                "dare",
                "alignguard",
            ],
            in_sight=(
                "method",
                "strength_1",
                "strength_2",
                "strength_3",
                "strength_4",
                "output_rank",
                "resolution",
            ),
            description="Combine safety experts of one base model into a single LoRA.",
            inputs=[
                *(_expert_input(number) for number in NUMBERS),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip=f"{ONLY_FOR}: the base model of the experts, directly from its loader.",
                ),
                io.Clip.Input("clip", optional=True, tooltip=f"{ONLY_FOR}: encodes the calibration prompts."),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip=f"{ONLY_FOR}, with safety pairs: compares the experts on the pairs' images with "
                    "noise added. If not connected, they are compared on what the base model draws from the "
                    "prompts.",
                ),
                io.MultiType.Input(
                    "calibration",
                    types=[inputs.SafetyPairs, io.String],
                    optional=True,
                    tooltip=f"{ONLY_FOR}: the prompts on which the experts are compared. Safety pairs, or "
                    "text with one prompt per line, which may begin with its category, as in 'violence: ...' "
                    "or 'neutral: ...'. Use unsafe prompts of every category, equally many of each. Without "
                    "neutral ones, regmean takes everyday prompts that come with the pack.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(MERGE_METHODS),
                    default=MergeConfig.method,
                    tooltip=option_help(MergeConfig, "method"),
                ),
                *(_strength_input(number) for number in NUMBERS),
                *config_inputs(MergeConfig, skip=("method",), before={"timesteps": [_resolution_input()]}),
                *more_inputs("expert", NUMBERS, "Further experts of the same base model."),
            ],
            outputs=[
                inputs.SafetyExpert.Output(
                    display_name="expert", tooltip="One expert for all categories of its members."
                ),
                io.String.Output(
                    display_name="report", tooltip="Members, winners per layer, ranks and norms."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        method: str | None,
        strength_1: float | None = 1.0,
        strength_2: float | None = 1.0,
        model: object = ABSENT,
        clip: object = ABSENT,
        calibration: object = ABSENT,
        more_experts: object = None,  # hosts that grow sockets always pass the group
    ) -> bool | str:
        sockets = {"model": model, "clip": clip, "calibration": calibration}
        missing = [name for name, value in sockets.items() if value is ABSENT]
        take_part = [strength for strength in (strength_1, strength_2) if strength]  # None: not known yet
        return checked(
            (partial(check_strength, name="strength_1"), strength_1),
            (partial(check_strength, name="strength_2"), strength_2),
            (lambda name: refuse_uncalibrated(name, len(take_part), missing), method),
        )

    @classmethod
    def execute(
        cls,
        method: str,
        model: object = None,
        clip: object = None,
        calibration: object = None,
        resolution: int = DEFAULT_RESOLUTION,
        vae: object = None,
        **slots: object,  # expert_1..8, strength_1..8 and the options of MergeConfig
    ) -> io.NodeOutput:
        used = list(connected(slots, "expert", NUMBERS))
        for slot in used:
            check_strength(slot.strength, slot.strength_name)
        (config,) = from_widgets({**slots, "method": method}, MergeConfig)
        on_progress = host.progress(cls.hidden.unique_id)
        calibration_run = Calibration(model, clip, vae, calibration, resolution, config, on_progress)
        experts, strengths = [slot.value for slot in used], [slot.strength for slot in used]

        def merge() -> tuple[SafetyExpert, str]:
            merged = merge_experts(
                experts,
                config,
                strengths=strengths,
                calibrate=calibration_run.statistics,
                distilled=calibration_run.distilled,
                on_progress=on_progress,
            )
            return merged, "\n".join([merged.report(), *calibration_run.notes])

        runs = FinishedRuns(host.private_folder("finished"), kept=KEPT)
        finished = FinishedMerges(runs, config, list(zip(experts, strengths, strict=True)))
        merged, text, is_reused = finished.merged(calibration_run.facts(finished.is_calibrated), merge)
        text = f"{REUSED}\n{text}" if is_reused else text
        return io.NodeOutput(merged, text, ui=expert_preview(merged, text))


def _expert_input(number: int) -> io.Input:
    which = "An expert of one category." if number in REQUIRED else "Another expert of the same base model."
    return inputs.SafetyExpert.Input(
        f"expert_{number}", optional=number not in REQUIRED, tooltip=f"{which} The order does not matter."
    )


def _strength_input(number: int) -> io.Input:
    return strength_input(
        f"strength_{number}",
        f"Weight of expert_{number} in the merge. Higher lets it win more of the model; 0 leaves it out.",
        optional=True,
    )


def _resolution_input() -> io.Input:
    return resolution_input(
        f"{ONLY_FOR}: image size of the calibration runs. Lower is faster and further from what the model "
        "was trained for."
    )
