"""Node: Safety Expert Info."""

from comfy_api.latest import io

from . import host
from .inputs import CATEGORY, SafetyExpert
from .shown.preview import expert_preview


class SafetyExpertInfo(io.ComfyNode):
    """Show what an expert is, how it was made and where in the model it acts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardSafetyExpertInfo",
            display_name="Safety Expert Info",
            category=CATEGORY,
            search_aliases=["lora info", "metadata", "inspect", "alignguard"],
            description="Show an expert's categories, base model, training and size; for a merged "
            "or extracted expert also a picture of its layers.",
            inputs=[SafetyExpert.Input("expert", tooltip="From Load, Merge or Train.")],
            outputs=[io.String.Output(display_name="report", tooltip="The text shown, for Preview as Text.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, expert: object) -> io.NodeOutput:
        report = expert.report()
        return io.NodeOutput(report, ui=expert_preview(expert, report))
