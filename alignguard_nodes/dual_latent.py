"""Node: Dual Latent Guidance."""

from typing import Any

from comfy_api.latest import io, ui

from ..training.config import DualLatentConfig
from . import host, inputs
from .inputs import ABSENT, CATEGORY, config_inputs

ONE_CONTEXT = (
    "connect either safe (an encoded harmless prompt) or concept (from Concept Vector), and not both: each "
    "says what the picture is guided to."
)


class DualLatent(io.ComfyNode):
    """Guide the sampling of a model towards a safe context."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardDualLatent",
            display_name="Dual Latent Guidance",
            category=CATEGORY,
            search_aliases=[
                "two latents",
                "safe context",
                "safety guidance",
                "censor",
                "without training",
                "alignguard",
            ],
            description="Guide sampling towards a safe context where a guard blocks a prompt, and change no "
            "weight (after the idea of Dual Latent Reconstruction, arXiv:2411.13982).",
            inputs=[
                io.Model.Input("model", tooltip="The model that draws; its weights stay as they are."),
                io.Conditioning.Input(
                    "positive",
                    tooltip="The encoded prompt, from the same node as the sampler's positive. It is read to "
                    "make or to check the safe context; the sampler still needs its own link.",
                ),
                io.Conditioning.Input(
                    "safe",
                    optional=True,
                    tooltip="A harmless prompt, encoded by the same CLIP; Rewrite Prompts writes such. "
                    "The picture moves towards it.",
                ),
                inputs.ConceptVector.Input(
                    "concept",
                    optional=True,
                    tooltip="Instead of safe: from Concept Vector. The safe context is then the prompt with "
                    "as little of the concept as prompts without it have.",
                ),
                *config_inputs(DualLatentConfig),
                io.Boolean.Input(
                    "active",
                    default=True,
                    optional=True,
                    tooltip="Link blocked of Prompt Guard here: a prompt that passes is then drawn by the "
                    "unchanged model, bit for bit.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="For KSampler or CFGGuider.")],
        )

    @classmethod
    def validate_inputs(cls, safe: Any = ABSENT, concept: Any = ABSENT) -> bool | str:
        return True if (safe is ABSENT) != (concept is ABSENT) else ONE_CONTEXT

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        safe: Any = None,
        concept: Any = None,
        active: bool = True,
        **settings: Any,
    ) -> io.NodeOutput:
        config = DualLatentConfig(**settings)
        if (safe is None) == (concept is None):
            raise ValueError(ONE_CONTEXT)
        context = _relieved(positive, concept) if safe is None else _checked(safe, positive)
        if not active or config.weight == 0:
            return io.NodeOutput(model, ui=ui.PreviewText("off: the model is unchanged"))
        outcome = f"{config.weight:.0%} safe context, from {config.start:.0%} of the sampling on"
        return io.NodeOutput(host.guide_to(model, context, config), ui=ui.PreviewText(outcome))


def _relieved(positive: Any, concept: Any) -> Any:
    from ..training.guards.dual_latent import relieved

    return host.changed_conditioning(positive, lambda encoded: relieved(encoded, concept))


def _checked(safe: Any, positive: Any) -> Any:
    safe_widths, widths = ({embeds.shape[-1] for embeds, _ in part} for part in (safe, positive))
    if safe_widths != widths:
        raise ValueError(
            f"safe is encoded to width {min(safe_widths)}, but positive to width {min(widths)}. Encode both "
            "with the CLIP of the model's checkpoint."
        )
    return safe
