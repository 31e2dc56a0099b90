"""Node: Train Safety Cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..training.config import CostConfig
from . import host, inputs
from .files import SAVED_JUDGES, new_expert_path
from .inputs import ABSENT, CATEGORY, checked, config_inputs, from_widgets
from .shown.cost_picture import draw_costs
from .shown.preview import preview

if TYPE_CHECKING:
    from ..training.evaluation.cost_model import ImageEncoder
    from ..training.pairs import SafetyPairs

PREFIX = "safety_cost"
ONE_ENCODER = (
    "the judge reads either CLIP image embeddings or the latents of a VAE. Connect one of the two, not both."
)


class TrainSafetyCost(io.ComfyNode):
    """Train a judge of pictures on pairs, and save it at once."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardTrainSafetyCost",
            display_name="Train Safety Cost",
            category=CATEGORY,
            search_aliases=["sc-dpo", "reward model", "nsfw classifier", "train a judge", "alignguard"],
            in_sight=("filename_prefix", "steps", "folds"),
            description="Train a judge of pictures on your own pairs, after the idea of SC-DPO's safety cost "
            "model. Saved to output/safety_judges. Advice, never a guarantee.",
            inputs=[
                inputs.SafetyPairs.Input(
                    "pairs",
                    tooltip="What the judge learns from: the unsafe and the safe picture of each pair. Pairs "
                    "of many scenes teach it the harm, pairs of few teach it the scenes.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="Connect it, or a VAE: the judge reads its image embeddings. It sees what "
                    "pictures mean, and suits real images best.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Connect it, or CLIP Vision: the judge reads its latents, pooled to 8 x 8. Needs "
                    "no further model, and sees shapes and colours more than meaning.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default=PREFIX,
                    optional=True,
                    tooltip="Name of the file in output/safety_judges. A counter is added, and no file is "
                    "overwritten.",
                ),
                *config_inputs(CostConfig),
            ],
            outputs=[
                inputs.SafetyCost.Output(
                    display_name="cost", tooltip="For Safety Judge, with the judge safety_cost."
                ),
                io.String.Output(
                    display_name="judge_file",
                    tooltip="Name of the file. As models/safety_judges/safety_cost.safetensors it is the "
                    "judge safety_cost of every node.",
                ),
                io.String.Output(
                    display_name="report", tooltip="How well it judges pairs it was not trained on."
                ),
                io.Image.Output(
                    display_name="picture", tooltip="Costs of held-out pictures, as a histogram."
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls, clip_vision: Any = ABSENT, vae: Any = ABSENT, filename_prefix: str | None = PREFIX
    ) -> bool | str:
        return checked(
            (lambda prefix: new_expert_path(host.output_folder(), prefix, SAVED_JUDGES), filename_prefix),
            (_check_encoders, (clip_vision is not ABSENT, vae is not ABSENT)),
        )

    @classmethod
    def execute(
        cls, pairs: SafetyPairs, clip_vision: Any = None, vae: Any = None, **widgets: Any
    ) -> io.NodeOutput:
        from ..training.evaluation.train_cost import train_cost

        (config,) = from_widgets(widgets, CostConfig)
        output = host.output_folder()
        path = new_expert_path(output, widgets.get("filename_prefix", PREFIX), SAVED_JUDGES)
        report_progress = host.progress(cls.hidden.unique_id)
        with host.outside_inference_mode():
            trained = train_cost(
                pairs,
                _encoder(clip_vision, vae),
                config,
                on_progress=lambda stage, done, total: report_progress(done, total),
            )
            trained.model.write(path)
        name = path.relative_to(output / SAVED_JUDGES).as_posix()
        report = f"saved as {SAVED_JUDGES}/{name}\n{trained.report()}"
        picture = host.image_tensor(draw_costs(trained.costs))
        return io.NodeOutput(trained.model, name, report, picture, ui=preview(report, picture))


def _encoder(clip_vision: Any, vae: Any) -> ImageEncoder:
    from ..training.evaluation.cost_model import CLIP_VISION, ImageEncoder, latent_encoder

    _check_encoders((clip_vision is not None, vae is not None))
    if clip_vision is not None:
        return ImageEncoder(CLIP_VISION, host.clip_embed(clip_vision))
    return latent_encoder(host.vae_latents(vae))


def _check_encoders(connected: tuple[bool, bool]) -> None:
    """Refuse two encoders, and none."""
    if sum(connected) != 1:
        raise ValueError(
            "the judge reads either CLIP image embeddings or the latents of a VAE. Connect one of "
            f"clip_vision and vae, got {sum(connected)}."
        )
