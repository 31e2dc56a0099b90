"""Node: Load Safety Expert."""

from comfy_api.latest import io, ui

from ..training.experts.expert import load_expert
from . import host
from .files import file_fingerprint
from .inputs import CATEGORY, SafetyExpert, check_strength, strength_input

UNCONNECTED = (
    "Load Safety Expert has no model to give: its model input is not connected. Connect a checkpoint's "
    "MODEL to it, or use its expert output with Apply Safety Expert."
)


class LoadSafetyExpert(io.ComfyNode):
    """Read an expert from a file and, where a model is connected, put it on the model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AlignGuardLoadSafetyExpert",
            display_name="Load Safety Expert",
            category=CATEGORY,
            description="Read a safety expert, and put it on a model that is connected.",
            inputs=[
                io.Combo.Input(
                    "expert_name",
                    options=host.expert_files(),
                    tooltip="A .safetensors file in models/safety_experts or in a LoRA folder. Experts "
                    "saved by this pack are in loras/alignguard; press R to see new ones.",
                ),
                strength_input(
                    "strength",
                    "How strongly the model output is steered away from harm: 1 is as trained, 0 leaves "
                    "the model as it is. The expert output is not changed by it.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model to protect. Leave it open if you only need the expert, to merge it.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The connected model with the expert on it."),
                SafetyExpert.Output(display_name="expert", tooltip="The expert as it was trained."),
            ],
        )

    @classmethod
    def validate_inputs(cls, expert_name: str | None) -> bool | str:
        try:
            if expert_name is not None:  # None: comes through a link
                host.expert_path(expert_name)
        except FileNotFoundError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, expert_name: str, strength: float = 1.0, model: object = None) -> str:
        return file_fingerprint(host.expert_path(expert_name))

    @classmethod
    def execute(cls, expert_name: str, strength: float, model: object = None) -> io.NodeOutput:
        check_strength(strength)
        expert = load_expert(host.expert_path(expert_name))
        if model is None:
            return io.NodeOutput(host.Blocked(UNCONNECTED), expert)
        patched, outcome = host.apply_expert(model, expert, strength=strength)
        return io.NodeOutput(patched, expert, ui=ui.PreviewText(outcome))
