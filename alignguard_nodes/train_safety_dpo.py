"""Node: Train Safety DPO."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from ..training.config import PRESET_HELP, PRESETS, TrainConfig, preset_text, preset_values
from ..training.losses import LOSSES
from ..training.rules.categories import CATEGORIES, normalize_category
from ..training.system.quantities import duration
from . import host, inputs
from .files import new_expert_path, run_name
from .inputs import CATEGORY, DEFAULT_RESOLUTION, config_inputs, resolution_input
from .shown.loss_curve import draw_loss_curve
from .shown.training_watch import TrainingWatch, held_out_accuracies

if TYPE_CHECKING:
    from ..training.pairs.training_data import TrainingData

log = logging.getLogger(__name__)

AUTO = "auto"
# widgets younger than `resume`, by age: saved graphs store widgets by position
_APPENDED = (
    "lr_schedule",
    "prompts",
    "pair_weighting",
    "checkpointing",
    "preset",
    "bake_patches",
    "flip",
    "buckets",
    "bank",
    "validation",
    "validate_every",
    "patience",
)


class TrainSafetyDPO(io.ComfyNode):
    """Train one expert on preference pairs, and save it before anything else can happen."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AlignGuardTrainSafetyDPO",
            display_name="Train Safety DPO",
            category=CATEGORY,
            description="Train a safety expert on pairs of safe and unsafe pictures, by Direct Preference "
            "Optimization. The result is saved to output/loras/alignguard.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="The base model, straight from its loader; for others see bake_patches."
                ),
                io.Clip.Input("clip", tooltip="Encodes the prompts once, then makes room."),
                io.Vae.Input("vae", tooltip="Encodes the pictures once, then makes room."),
                inputs.SafetyPairs.Input(
                    "pairs", tooltip="From Load Safety Pairs. One category makes a good expert."
                ),
                io.Combo.Input(
                    "category",
                    options=[AUTO, *CATEGORIES],
                    default=AUTO,
                    tooltip="What the expert is against, for its file. auto takes it from the pairs; a "
                    "name makes sure that all pairs are of that category.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="",
                    optional=True,
                    tooltip="Name of the file in output/loras/alignguard; a counter is added and nothing is "
                    "overwritten. Empty names it after the category.",
                ),
                resolution_input(
                    "Pictures are resized to this many pixels. Lower is faster and further from what the "
                    "model was made for. Paper: 512 (SD 1.5), 1024 (SDXL); the mini model: 64."
                ),
                *config_inputs(TrainConfig, choices={"objective": LOSSES}, skip=_APPENDED),
                io.Boolean.Input(
                    "resume",
                    default=False,
                    optional=True,
                    tooltip="On: goes on from the newest state of the same filename_prefix, as of a "
                    "cancelled run; all but save_every (and steps, if lr_schedule is constant) must be as "
                    "they were. Starts from the beginning where there is none. Off: always does.",
                ),
                *_appended(),
            ],
            outputs=[
                inputs.SafetyExpert.Output(
                    display_name="expert", tooltip="For Apply, Merge or Info; saved already."
                ),
                io.LossMap.Output(
                    display_name="loss_map", tooltip="The loss of every step, for Plot Loss Graph."
                ),
                io.String.Output(display_name="report", tooltip="Where it was saved, and how training went."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, category: str | None) -> bool | str:  # None: comes through a link
        try:
            normalize_category(category or AUTO)  # the user's own categories are allowed, in API prompts
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        pairs: Any,
        category: str,
        filename_prefix: str = "",
        resolution: int = DEFAULT_RESOLUTION,
        resume: bool = False,
        preset: str = "custom",
        bake_patches: bool = False,
        **settings: Any,  # the options of TrainConfig
    ) -> io.NodeOutput:
        from ..training.pairs.encode import encode_pairs
        from ..training.trainer.train_expert import expert_name

        config = TrainConfig(**{**settings, **preset_values(preset)})
        family = host.check_trainable(model, bake_patches=bake_patches)  # before minutes of encoding
        category = _category_of(pairs, category)
        prefix = filename_prefix or expert_name(category)
        out = new_expert_path(host.output_folder(), prefix)
        run_dir = host.private_folder("runs") / run_name(host.output_folder(), prefix)
        report = host.progress(cls.hidden.unique_id)
        watch = TrainingWatch(report)
        data = encode_pairs(
            pairs,
            host.encoders(model, clip, vae, family),
            resolution=resolution,
            mirrored=config.flip > 0,
            bucketed=config.buckets,
            cache_dir=host.private_folder("cache"),
            on_progress=report,
        )
        expert, result, num_baked = _train(
            model,
            data,
            config,
            bake_patches,
            category=category,
            out=out,
            run_dir=run_dir,
            resume=resume,
            on_progress=watch,
            on_plan=watch.planned,
            check_cancel=host.check_cancel,
        )
        text = _report(expert, result, pairs, out.with_name(expert.name), preset, num_baked)
        picture = draw_loss_curve(result.losses, held_out=held_out_accuracies(result.validations))
        curve = ui.PreviewImage(host.image_tensor(picture))
        return io.NodeOutput(
            expert, {"loss": result.losses}, text, ui={**curve.as_dict(), **ui.PreviewText(text).as_dict()}
        )


def _appended() -> list[io.Input]:
    preset = io.Combo.Input(
        "preset", options=list(PRESETS), default="custom", optional=True, tooltip=PRESET_HELP
    )
    bake_patches = io.Boolean.Input(
        "bake_patches",
        default=False,
        optional=True,
        tooltip="On: a LoRA or expert before this node becomes part of the base model, and the new expert is "
        "for that model. Off: such a MODEL is refused.",
    )
    younger = {each.id: each for each in (*config_inputs(TrainConfig), preset, bake_patches)}
    return [younger[name] for name in _APPENDED]


def _train(model: Any, data: TrainingData, config: TrainConfig, bake_patches: bool, **options: Any) -> tuple:
    from ..training.trainer.train_expert import train_expert

    lent = host.borrowed_unet(model, config.precision, bake_patches=bake_patches)
    with host.outside_inference_mode(), lent as base:
        expert, result = train_expert(
            base.unet,
            data,
            base.family.schedule(),
            config,
            family=base.family.name,
            base_hash=base.weights_hash,
            **options,  # the others of train_expert
        )
        return expert, result, base.num_baked


def _category_of(pairs: Any, category: str) -> str:
    if category == AUTO:
        return ", ".join(pairs.categories)
    category = normalize_category(category)
    others = [pair.id for pair in pairs.pairs if category not in pair.categories]
    if others:
        raise ValueError(
            f"{len(others)} of {len(pairs.pairs)} pairs are not of the category {category}, such as "
            f"{others[0]}. Choose {category} in Load Safety Pairs too, or set category to {AUTO} here."
        )
    return category


def _report(expert: Any, result: Any, pairs: Any, out: Path, preset: str, num_baked: int) -> str:
    measured = {name for name in result.metrics if name.startswith("validation_")} | {"step", "loss"}
    shown = {name: value for name, value in result.metrics.items() if name not in measured}
    figures = ", ".join(f"{name} {value:.4g}" for name, value in shown.items())
    losses = f"loss {result.losses[0]:.4g} -> {result.losses[-1]:.4g}"
    lines = [
        f"saved as {out.relative_to(host.output_folder()).as_posix()}",
        preset_text(preset),
        f"{num_baked} weights carry the patches of the MODEL; they are the base model" if num_baked else "",
        f"{len(result.losses)} steps in {duration(result.seconds)}, {losses}",
        f"plan: {result.plan.text()}",
        f"step {result.steps_done}: {figures}",
        f"held-out pairs: {result.validation_text()}",
        f"pairs: {pairs.report.text()}",
        expert.report(),
    ]
    return "\n".join(line for line in lines if line)
