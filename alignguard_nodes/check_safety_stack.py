"""Node: Check Safety Stack."""

from typing import Any

from comfy_api.latest import io, ui

from ..training.robustness import safety_stack
from . import host, sockets
from .sockets import CATEGORY, MAX_STRENGTH, check_strength, strength_input
from .stack_picture import draw_stack

NUMBERS = range(1, 5)


class CheckSafetyStack(io.ComfyNode):
    """Tell what other LoRAs leave of an expert."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AlignGuardCheckSafetyStack",
            display_name="Check Safety Stack",
            category=CATEGORY,
            description="Tell whether style or character LoRAs work against a safety expert beside them.",
            inputs=[
                sockets.SafetyExpert.Input("expert", tooltip="The safety expert, single or merged."),
                *(_lora_input(number) for number in NUMBERS),
                strength_input("strength", "At which the expert is used.", optional=True),
                *(_lora_strength_input(number) for number in NUMBERS),
            ],
            outputs=[
                io.Float.Output(
                    display_name="retention",
                    tooltip="What is left of the expert's direction in all: 1 untouched, 0 cancelled.",
                ),
                io.Float.Output(
                    display_name="min_retention", tooltip="The same in the layer it is lowest in."
                ),
                io.String.Output(
                    display_name="report", tooltip="The layers that suffer most, and what would restore them."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, expert: Any, strength: float = 1.0, **slots: Any) -> io.NodeOutput:
        check_strength(strength)
        used = [number for number in NUMBERS if slots.get(f"lora_{number}") is not None]
        others = [(slots[f"lora_{number}"], slots.get(f"strength_{number}", 1.0)) for number in used]
        stack = safety_stack(expert, others, strength=strength)
        report, picture = stack.report(), ui.PreviewImage(host.image_tensor(draw_stack(stack)))
        shown = {**picture.as_dict(), **ui.PreviewText(report).as_dict()}
        return io.NodeOutput(stack.retention, stack.min_retention, report, ui=shown)


def _lora_input(number: int) -> io.Input:
    return sockets.SafetyExpert.Input(
        f"lora_{number}",
        optional=number > 1,
        tooltip="A LoRA used beside the expert, from Load Safety Expert, which lists models/loras too.",
    )


def _lora_strength_input(number: int) -> io.Input:
    return io.Float.Input(
        f"strength_{number}",
        default=1.0,
        min=-MAX_STRENGTH,
        max=MAX_STRENGTH,
        step=0.05,
        optional=True,
        tooltip=f"At which lora_{number} is used.",
    )
