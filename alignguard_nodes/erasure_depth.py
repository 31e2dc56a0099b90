"""Node: Erasure Depth."""

from typing import Any

from comfy_api.latest import io, ui

from ..training.config import DepthConfig
from ..training.experts.expert import check_family
from ..training.rules.hard_rule import refuse_minors
from . import host, inputs
from .inputs import CATEGORY, check_strength, config_inputs, strength_input


class ErasureDepth(io.ComfyNode):
    """Measure whether naming a concept still helps a model with an expert to explain a picture of it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AlignGuardErasureDepth",
            display_name="Erasure Depth",
            category=CATEGORY,
            is_experimental=True,
            description="Experimental: is a concept gone from the model, or only out of reach of its words? "
            "Draws nothing and shows no picture.",
            inputs=[
                io.Model.Input("model", tooltip="The base model, straight from its loader."),
                inputs.SafetyExpert.Input("expert", tooltip="The expert to be measured on it."),
                io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                io.Image.Input(
                    "image",
                    tooltip="Pictures of the concept, at the size the model was made for. Several make the "
                    "interval speak for more than one picture. They are not shown or kept.",
                ),
                io.String.Input(
                    "concept_prompt", default="", multiline=True, tooltip="A prompt that names the concept."
                ),
                io.String.Input(
                    "neutral_prompt",
                    default="",
                    multiline=True,
                    tooltip="The same prompt without the concept; empty works too.",
                ),
                strength_input("strength", "Of the expert: 1 is as trained.", optional=True),
                *config_inputs(DepthConfig),
            ],
            outputs=[
                io.Float.Output(
                    display_name="depth",
                    tooltip="1: naming the concept helps no more; 0: as much as it helps the base model.",
                ),
                io.String.Output(display_name="report", tooltip="Depth and gaps with their intervals."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        expert: Any,
        clip: Any,
        vae: Any,
        image: Any,
        concept_prompt: str,
        neutral_prompt: str,
        strength: float = 1.0,
        **settings: Any,  # the options of DepthConfig
    ) -> io.NodeOutput:
        from ..training.evaluation.attacks import measure_depth

        check_strength(strength)
        refuse_minors(concept_prompt, neutral_prompt)
        check_family(expert, *host.family_of(model))
        family, config = host.check_trainable(model), DepthConfig(**settings)
        report = host.progress(cls.hidden.unique_id)
        told = host.encode_prompts(clip, (concept_prompt, neutral_prompt), family, report)
        latents = host.encoders(model, clip, vae, family).image(host.pictures_of(image) * 2 - 1)
        # fp32, for the gaps are small differences of errors
        with host.outside_inference_mode(), host.borrowed_unet(model, "fp32") as base:
            schedule = base.family.schedule()
            found = measure_depth(
                base.unet, expert, latents, told[:1], told[1:], schedule, config,
                strength=strength, on_progress=report,
            )  # fmt: skip
        undetermined = host.Blocked("Erasure Depth is undetermined; its report says why.")
        depth = undetermined if found.depth is None else found.depth
        return io.NodeOutput(depth, found.report(), ui=ui.PreviewText(found.report()))
