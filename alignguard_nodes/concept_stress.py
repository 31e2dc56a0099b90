"""Node: Concept Stress."""

from typing import Any

from comfy_api.latest import io

from ..training.config import StressConfig
from . import host, inputs
from .inputs import CATEGORY, config_inputs


class ConceptStress(io.ComfyNode):
    """Push an encoded prompt along a concept."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardConceptStress",
            display_name="Concept Stress",
            category=CATEGORY,
            search_aliases=["ring-a-bell", "red team", "attack", "robustness", "alignguard"],
            description="Push an encoded prompt towards a concept, to see whether your own model still "
            "resists it. Judge the pictures, and show them only blurred.",
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="The encoded prompt, at most 77 tokens long."),
                inputs.ConceptVector.Input("concept", tooltip="From Concept Vector, with the same CLIP."),
                *config_inputs(StressConfig),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning", tooltip="The prompt with eta times the concept added."
                ),
            ],
        )

    @classmethod
    def execute(cls, conditioning: Any, concept: Any, **settings: Any) -> io.NodeOutput:
        from ..training.evaluation.attacks import stressed

        config = StressConfig(**settings)
        return io.NodeOutput(
            host.changed_conditioning(
                conditioning,
                lambda encoded: stressed(encoded, concept, config.eta, push_pooled=config.push_pooled),
            )
        )
