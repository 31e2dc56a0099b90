"""Node: Apply Safety Expert."""

from comfy_api.latest import io, ui

from . import host
from .inputs import CATEGORY, SafetyExpert, check_strength, strength_input


class ApplySafetyExpert(io.ComfyNode):
    """Put an expert on a model, for the whole picture or for a part of its steps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AlignGuardApplySafetyExpert",
            display_name="Apply Safety Expert",
            category=CATEGORY,
            description="Put a safety expert, single or merged, on a model.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model to protect. It must be of the line the expert was made for."
                ),
                SafetyExpert.Input("expert", tooltip="From Load, Merge or Train."),
                strength_input(
                    "strength",
                    "Higher steers away from harm more firmly and changes other pictures more. 1 is as "
                    "trained, 0 leaves the model as it is.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Later keeps the layout that the model would draw anyway, and with it some of "
                    "the harm. 0 protects from the first step.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Earlier leaves fine details to the unprotected model. 1 protects to the end.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model with the expert on it.")],
        )

    @classmethod
    def execute(
        cls, model: object, expert: object, strength: float, start_percent: float, end_percent: float
    ) -> io.NodeOutput:
        check_strength(strength)
        patched, outcome = host.apply_expert(
            model, expert, strength=strength, start_percent=start_percent, end_percent=end_percent
        )
        return io.NodeOutput(patched, ui=ui.PreviewText(outcome))
