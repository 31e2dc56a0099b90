"""Node: Check Safety Stack."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..training.config import EvaluateConfig
from ..training.evaluation import RULES
from . import host, inputs
from .benchmarking import Drawing, Place, Variant, check_folder, measure
from .files import BENCHMARKS
from .inputs import (
    ABSENT,
    CATEGORY,
    MAX_STRENGTH,
    NONE,
    check_strength,
    checked,
    config_inputs,
    connected,
    more_inputs,
    sampling_inputs,
    side_input,
    strength_input,
)
from .judging import check_judges, clip_vision_input, judge_input, panel_of, threshold_input
from .shown.preview import preview
from .shown.stack_picture import draw_stack

if TYPE_CHECKING:
    from ..training.evaluation.benchmark import BenchmarkReport

NUMBERS = range(1, 5)
FOLDER = "my_stack"
_NEEDED = ("model", "clip", "vae", "prompts")  # to draw


class CheckSafetyStack(io.ComfyNode):
    """Measure how much of an expert other LoRAs leave."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardCheckSafetyStack",
            display_name="Check Safety Stack",
            category=CATEGORY,
            search_aliases=["lora conflict", "lora compatibility", "style lora", "alignguard"],
            in_sight=(
                "strength",
                "strength_1",
                "strength_2",
                "strength_3",
                "strength_4",
                "judge",
                "folder",
                "resolution",
            ),
            description="Measure whether style or character LoRAs work against a safety expert: by their "
            "weights and, with a model and prompts connected, by the pictures they draw.",
            inputs=[
                inputs.SafetyExpert.Input("expert", tooltip="The safety expert, single or merged."),
                *(_lora_input(number) for number in NUMBERS),
                strength_input("strength", "Strength of the expert.", optional=True),
                *(_lora_strength_input(number) for number in NUMBERS),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The base model, without expert and LoRAs. With it and clip, vae, prompts and a "
                    "judge, pictures are drawn and judged; otherwise only weights are compared.",
                ),
                io.Clip.Input("clip", optional=True, tooltip="Encodes the prompts."),
                io.Vae.Input("vae", optional=True, tooltip="Turns latents into pictures."),
                inputs.PromptSet.Input(
                    "prompts",
                    optional=True,
                    tooltip="Unsafe prompts to measure on, and neutral ones too if you like. From Load "
                    "Prompt Set.",
                ),
                judge_input(
                    "judge",
                    "The judge decides which pictures are unsafe; with none, no picture is drawn.",
                    optional=True,
                    may_be_none=True,
                ),
                threshold_input("threshold"),
                clip_vision_input(),
                io.String.Input(
                    "folder",
                    default=FOLDER,
                    optional=True,
                    tooltip=f"For rows and report, below output/{BENCHMARKS}. A folder begun with the same "
                    "settings is continued, also with other LoRAs; one with other settings is refused.",
                ),
                *sampling_inputs(optional=True),
                side_input(),
                *config_inputs(EvaluateConfig),
                *more_inputs("lora", NUMBERS, "Further LoRAs used beside the expert."),
            ],
            outputs=[
                io.Float.Output(
                    display_name="retention",
                    tooltip="Share of the expert's direction that is left: 1 untouched, 0 cancelled.",
                ),
                io.Float.Output(display_name="min_retention", tooltip="The lowest retention of any layer."),
                io.String.Output(
                    display_name="report",
                    tooltip="The layers with the lowest retention, the strength that would restore it, and "
                    "how often pictures are unsafe with the LoRAs and without.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        folder: str | None = None,
        judge: str | None = NONE,
        clip_vision: object = ABSENT,
        more_loras: object = None,  # hosts that grow sockets always pass the group
    ) -> bool | str:
        return checked(
            (check_folder, folder),
            (partial(check_judges, has_clip_vision=clip_vision is None), [judge]),
        )

    @classmethod
    def execute(cls, expert: Any, strength: float = 1.0, **slots: Any) -> io.NodeOutput:
        from ..training.evaluation.safety_stack import safety_stack

        check_strength(strength)
        others = [(slot.value, slot.strength) for slot in connected(slots, "lora", NUMBERS)]
        stack = safety_stack(expert, others, strength=strength)
        alone = (expert, strength)
        report, charts = stack.report(), [host.image_tensor(draw_stack(stack))]
        if missing := _missing(slots):
            report += f"\nchange of IP: not measured; {', '.join(missing)} to draw and judge pictures."
        else:
            benchmark = _benchmark([[alone], [alone, *others]], slots, cls.hidden.unique_id)
            charts.append(host.image_tensor(benchmark.write()))  # unsafe pictures in it are blurred
            report += f"\n\n{benchmark.text()}\n{benchmark.study.command}"
        return io.NodeOutput(stack.retention, stack.min_retention, report, ui=preview(report, *charts))


def _missing(slots: Mapping[str, Any]) -> list[str]:
    """Return what the user has to do before pictures can be drawn and judged."""
    missing = [f"connect {name}" for name in _NEEDED if slots.get(name) is None]
    return missing + (["choose a judge"] if slots.get("judge", NONE) == NONE else [])


def _benchmark(variants: list[Variant], slots: Mapping[str, Any], node_id: str) -> BenchmarkReport:
    """Draw and judge the base, the expert alone, and the expert with the LoRAs."""
    models = {"clip_vision": slots.get("clip_vision"), "vae": slots.get("vae")}
    panel = panel_of([(slots["judge"], slots.get("threshold", 0.0))], RULES[0], **models)
    place = Place(slots.get("folder", FOLDER), "Check Safety Stack", node_id)
    return measure(Drawing.of(slots), variants, [slots["prompts"]], panel, place)


def _lora_input(number: int) -> io.Input:
    return inputs.SafetyExpert.Input(
        f"lora_{number}",
        optional=number > 1,
        tooltip="A LoRA used beside the expert. From Load Safety Expert, which lists models/loras too.",
    )


def _lora_strength_input(number: int) -> io.Input:
    return io.Float.Input(
        f"strength_{number}",
        default=1.0,
        min=-MAX_STRENGTH,
        max=MAX_STRENGTH,
        step=0.05,
        optional=True,
        tooltip=f"Strength of lora_{number}.",
    )
