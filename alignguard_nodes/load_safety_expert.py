"""Node: Load Safety Expert."""

from comfy_api.latest import io, ui

from ..training.experts.expert import load_expert
from ..training.rules.categories import FAMILY_NAMES, TEXT_WIDTHS
from . import host
from .files import file_fingerprint
from .inputs import CATEGORY, SafetyExpert, check_strength, checked, strength_input

FROM_FILE = "from the file"
UNCONNECTED = (
    "Load Safety Expert has no model to return, because its model input is not connected. Connect the MODEL "
    "of a checkpoint, or use the expert output with Apply Safety Expert."
)


class LoadSafetyExpert(io.ComfyNode):
    """Load an expert from a file and, if a model is connected, apply it to the model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardLoadSafetyExpert",
            display_name="Load Safety Expert",
            category=CATEGORY,
            search_aliases=["safety lora", "lora loader", "nsfw", "unlearn", "alignguard"],
            description="Load a safety expert, and apply it to the model if one is connected.",
            inputs=[
                io.Combo.Input(
                    "expert_name",
                    options=host.expert_files(),
                    tooltip="A .safetensors file in models/safety_experts or in a LoRA folder. Experts "
                    "saved by this pack are in loras/alignguard; press R to refresh the list.",
                ),
                strength_input(
                    "strength",
                    "Higher steers the model output further away from harm. 1 is as trained, 0 leaves the "
                    "model unchanged. It does not affect the expert output.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model to protect. Leave it unconnected if you only need the expert, for "
                    "example to merge it.",
                ),
                io.Combo.Input(
                    "base_model",
                    options=[FROM_FILE, *(FAMILY_NAMES[name] for name in TEXT_WIDTHS.values())],
                    default=FROM_FILE,
                    optional=True,
                    tooltip="Only for a LoRA whose layers fit several base models and whose file does not "
                    "say which is its own; the node stops and names them. A connected model decides too.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The connected model with the expert applied."),
                SafetyExpert.Output(display_name="expert", tooltip="The expert as it was trained."),
            ],
        )

    @classmethod
    def validate_inputs(cls, expert_name: str | None) -> bool | str:
        return checked((host.expert_path, expert_name))

    @classmethod
    def fingerprint_inputs(
        cls, expert_name: str, strength: float = 1.0, model: object = None, base_model: str = FROM_FILE
    ) -> str:
        return file_fingerprint(host.expert_path(expert_name))

    @classmethod
    def execute(
        cls, expert_name: str, strength: float, model: object = None, base_model: str = FROM_FILE
    ) -> io.NodeOutput:
        check_strength(strength)
        stated = next((family for family, name in FAMILY_NAMES.items() if name == base_model), "")
        assumed = stated or (host.family_of(model)[0] if model is not None else "")
        expert = load_expert(host.expert_path(expert_name), assumed_family=assumed)
        if model is None:
            return io.NodeOutput(host.Blocked(UNCONNECTED), expert)
        expert.check_whole()
        patched, outcome = host.apply_expert(model, expert, strength=strength)
        return io.NodeOutput(patched, expert, ui=ui.PreviewText(outcome))
