"""Node: Save Safety Expert."""

from functools import partial

from comfy_api.latest import io, ui

from ..training.experts.expert import SAVE_DTYPES, save_expert
from . import host
from .files import listed_name, new_expert_path
from .inputs import CATEGORY, SafetyExpert, checked


class SaveSafetyExpert(io.ComfyNode):
    """Save an expert where ComfyUI's LoRA lists find it; nothing is ever overwritten."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardSaveSafetyExpert",
            display_name="Save Safety Expert",
            category=CATEGORY,
            search_aliases=["save lora", "export lora", "alignguard"],
            description="Save an expert to output/loras/alignguard. Every LoRA loader can read the file.",
            inputs=[
                SafetyExpert.Input("expert", tooltip="The expert to save, single or merged."),
                io.String.Input(
                    "filename_prefix",
                    default="expert",
                    tooltip="The file name, without the counter that keeps existing files from being "
                    "overwritten. Folders are allowed, such as mine/merged.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(SAVE_DTYPES),
                    default="fp32",
                    tooltip="fp32 is exact. fp16 and bf16 halve the file size; fp16 is more precise, bf16 "
                    "has the larger range.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="saved_as", tooltip="Name of the file, as ComfyUI's LoRA lists show it."
                )
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None) -> bool | str:
        return checked((partial(new_expert_path, host.output_folder()), filename_prefix))

    @classmethod
    def execute(cls, expert: object, filename_prefix: str, dtype: str) -> io.NodeOutput:
        if dtype not in SAVE_DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(SAVE_DTYPES)}, got {dtype!r}.")
        output = host.output_folder()
        path = new_expert_path(output, filename_prefix)
        save_expert(expert, path, dtype=SAVE_DTYPES[dtype])
        text = f"saved as {path.relative_to(output).as_posix()}"
        return io.NodeOutput(listed_name(output, path), ui=ui.PreviewText(text))
