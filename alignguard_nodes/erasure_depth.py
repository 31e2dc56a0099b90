"""Node: Erasure Depth."""

from typing import Any

from comfy_api.latest import io, ui

from ..training.config import DepthConfig
from ..training.experts.expert import check_family
from ..training.rules.hard_rule import refuse_minors
from . import host, inputs
from .inputs import CATEGORY, check_strength, checked, config_inputs, strength_input


class ErasureDepth(io.ComfyNode):
    """Measure whether naming a concept still helps a model with an expert to explain an image of it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardErasureDepth",
            display_name="Erasure Depth",
            category=CATEGORY,
            search_aliases=["unlearning test", "concept erasure", "probe", "red team", "alignguard"],
            in_sight=("concept_prompt", "neutral_prompt", "strength"),
            is_experimental=True,
            description="Experimental: is a concept gone from the model, or only not reached by its words? "
            "Draws and shows no pictures.",
            inputs=[
                io.Model.Input("model", tooltip="The base model, straight from its loader."),
                inputs.SafetyExpert.Input("expert", tooltip="The expert to measure."),
                io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                io.Image.Input(
                    "image",
                    tooltip="Pictures of the concept, at the size that the model was made for. With 5 or "
                    "more, the interval holds for pictures like them. They are not shown or kept.",
                ),
                io.String.Input(
                    "concept_prompt", default="", multiline=True, tooltip="A prompt that names the concept."
                ),
                io.String.Input(
                    "neutral_prompt",
                    default="",
                    multiline=True,
                    tooltip="The same prompt without the concept; may be empty.",
                ),
                strength_input("strength", "Strength of the expert: 1 is as trained.", optional=True),
                *config_inputs(DepthConfig),
            ],
            outputs=[
                io.Float.Output(
                    display_name="depth",
                    tooltip="1: naming the concept no longer helps; 0: it helps as much as in the base.",
                ),
                io.String.Output(display_name="report", tooltip="Depth and gaps with their intervals."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, concept_prompt: str | None, neutral_prompt: str | None) -> bool | str:
        return checked(
            (lambda prompts: refuse_minors(*prompts), (concept_prompt or "", neutral_prompt or ""))
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
        **settings: Any,  # strength, and the options of DepthConfig
    ) -> io.NodeOutput:
        from ..training.evaluation.erasure_depth import ConceptProbe, measure_depth

        strength = settings.pop("strength", 1.0)
        check_strength(strength)
        refuse_minors(concept_prompt, neutral_prompt)
        expert.check_whole()
        check_family(expert, *host.family_of(model))
        family, config = host.check_trainable(model), DepthConfig(**settings)
        report = host.progress(cls.hidden.unique_id)
        encoded = host.encode_prompts(model, clip, (concept_prompt, neutral_prompt), family, report)
        latents = host.encoders(model, clip, vae, family).image(host.pictures_of(image) * 2 - 1)
        probe = ConceptProbe(latents, encoded[:1], encoded[1:])
        # fp32, because the gaps are small differences of errors
        with host.outside_inference_mode(), host.borrowed_unet(model, "fp32") as base:
            schedule = base.schedule
            result = measure_depth(
                base.unet, expert, probe, schedule, config, strength=strength, on_progress=report
            )
        undetermined = host.Blocked("Erasure Depth is undetermined; its report says why.")
        depth = undetermined if result.depth is None else result.depth
        return io.NodeOutput(depth, result.report(), ui=ui.PreviewText(result.report()))
