"""Node: Apply Safety Expert."""

from comfy_api.latest import io, ui

from . import host
from .inputs import CATEGORY, SafetyExpert, check_strength, checked, strength_input


class ApplySafetyExpert(io.ComfyNode):
    """Apply an expert to a model, for all sampling steps or for a part of them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardApplySafetyExpert",
            display_name="Apply Safety Expert",
            category=CATEGORY,
            search_aliases=["safety lora", "apply lora", "nsfw", "unlearn", "censor", "alignguard"],
            description="Apply a safety expert, single or merged, to a model.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model to protect, of the family that the expert was trained for.",
                ),
                SafetyExpert.Input("expert", tooltip="From Load, Merge or Train."),
                strength_input(
                    "strength",
                    "Higher steers further away from harm and changes other pictures more. 1 is as trained, "
                    "0 leaves the model unchanged.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Higher keeps more of the layout that the unprotected model draws, and with it "
                    "some of the harm. 0 protects from the first step.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Lower leaves more of the fine details to the unprotected model. 1 protects to "
                    "the last step.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model with the expert applied.")],
        )

    @classmethod
    def validate_inputs(cls, start_percent: float | None, end_percent: float | None) -> bool | str:
        return checked((lambda ends: None in ends or host.check_range(*ends), (start_percent, end_percent)))

    @classmethod
    def execute(
        cls, model: object, expert: object, strength: float, start_percent: float, end_percent: float
    ) -> io.NodeOutput:
        check_strength(strength)
        expert.check_whole()
        patched, outcome = host.apply_expert(
            model, expert, strength=strength, start_percent=start_percent, end_percent=end_percent
        )
        return io.NodeOutput(patched, ui=ui.PreviewText(outcome))
