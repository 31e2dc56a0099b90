"""Node: Train Safety DPO."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from comfy_api.latest import io

from ..training.config import TrainConfig, preset_text, preset_values
from ..training.losses import LOSSES
from ..training.rules.categories import CATEGORIES, normalize_category
from ..training.system.quantities import duration
from . import host, inputs
from .files import listed_name, new_expert_path, run_name
from .inputs import CATEGORY, checked, config_inputs, from_widgets, resolution_input
from .shown.loss_curve import draw_loss_curve
from .shown.preview import preview
from .shown.training_watch import TrainingWatch, held_out_accuracies
from .train_widgets import (
    TrainWidgets,
    bake_patches_input,
    check_options,
    filename_prefix_input,
    preset_input,
    resume_input,
)

if TYPE_CHECKING:
    from ..training.experts.expert import SafetyExpert
    from ..training.pairs import SafetyPairs
    from ..training.pairs.training_data import TrainingData
    from ..training.trainer.result import TrainResult
    from ..training.trainer.train_expert import Destination

AUTO = "auto"
NOT_HELD_OUT = "Train Safety DPO held out no pairs, so accuracy is not measured. Set validation above 0."
REUSED = (
    "Nothing was trained: an earlier run had equal inputs, and this is its expert. To train again, change "
    "the seed, or delete the file."
)


class _Outcome(NamedTuple):
    """A finished run: the expert, its figures, and how many weights of the base model carry patches."""

    expert: SafetyExpert
    result: TrainResult
    num_baked: int


class TrainSafetyDPO(io.ComfyNode):
    """Train one expert on preference pairs and save it at once."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardTrainSafetyDPO",
            display_name="Train Safety DPO",
            category=CATEGORY,
            search_aliases=[
                "train lora",
                "preference",
                "diffusion dpo",
                "duo",
                "unlearn",
                "concept erasure",
                "nsfw",
                "alignguard",
            ],
            in_sight=(
                "category",
                "preset",
                "objective",
                "steps",
                "rank",
                "resolution",
                "filename_prefix",
                "resume",
            ),
            description="Train a safety expert on pairs of safe and unsafe images by Direct Preference "
            "Optimization. The result is saved to output/loras/alignguard.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The base model, directly from its loader. See bake_patches for one with a LoRA.",
                ),
                io.Clip.Input("clip", tooltip="Encodes the prompts once and is then unloaded."),
                io.Vae.Input("vae", tooltip="Encodes the images once and is then unloaded."),
                inputs.SafetyPairs.Input(
                    "pairs", tooltip="From Load Safety Pairs. Pairs of a single category work best."
                ),
                io.Combo.Input(
                    "category",
                    options=[AUTO, *CATEGORIES],
                    default=AUTO,
                    tooltip="What the expert protects against; written into its file. auto takes it from the "
                    "pairs; with a name, all pairs must be of that category.",
                ),
                *config_inputs(
                    TrainConfig,
                    choices={"objective": LOSSES},
                    before={
                        "objective": [preset_input()],
                        "flip": [
                            resolution_input(
                                "Side in pixels to which images are resized. Lower is faster and further "
                                "from what the model was trained for. Paper: 512 (SD 1.5), 1024 (SDXL). "
                                "Mini model: 64."
                            )
                        ],
                        "save_every": [bake_patches_input(), filename_prefix_input()],
                    },
                ),
                resume_input(),
            ],
            outputs=[
                inputs.SafetyExpert.Output(
                    display_name="expert", tooltip="For Apply, Merge or Info. It is already saved."
                ),
                io.LossMap.Output(
                    display_name="loss_map", tooltip="The loss of every step, for Plot Loss Graph."
                ),
                io.String.Output(
                    display_name="report", tooltip="Where the expert was saved, and how training went."
                ),
                io.String.Output(
                    display_name="saved_as", tooltip="Name of the file, as ComfyUI's LoRA lists show it."
                ),
                io.Float.Output(
                    display_name="accuracy",
                    tooltip="Share of the held-out pairs on which the expert prefers the safe picture more "
                    "than the base model does. Set validation above 0 to measure it.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        category: str | None,
        preset: str | None = TrainWidgets.preset,
        objective: str | None = TrainConfig.objective,
        pair_weighting: str | None = TrainConfig.pair_weighting,
        validation: float | None = TrainConfig.validation,
        patience: int | None = TrainConfig.patience,
        bank: int | None = TrainConfig.bank,
        filename_prefix: str | None = TrainWidgets.filename_prefix,
    ) -> bool | str:
        named = {
            "objective": objective,
            "pair_weighting": pair_weighting,
            "validation": validation,
            "patience": patience,
            "bank": bank,
        }
        known = {name: value for name, value in named.items() if value is not None}
        return checked(
            (normalize_category, category),  # API prompts may use categories of their own
            (lambda prefix: prefix and new_expert_path(host.output_folder(), prefix), filename_prefix),
            (lambda name: check_options({**known, **preset_values(name)}), preset),
        )

    @classmethod
    def execute(
        cls, model: Any, clip: Any, vae: Any, pairs: SafetyPairs, category: str, **widgets: Any
    ) -> io.NodeOutput:
        settings = preset_values(widgets.get("preset", TrainWidgets.preset))
        config, choices = from_widgets({**widgets, **settings}, TrainConfig, TrainWidgets)
        family = host.check_trainable(model, bake_patches=choices.bake_patches)  # before encoding for minutes
        category = _category_of(pairs, category)
        destination = _destination(choices, category)
        report_progress = host.progress(cls.hidden.unique_id)
        encoders = host.encoders(model, clip, vae, family)
        data = _encode(pairs, encoders, config, choices.resolution, report_progress)
        watch = TrainingWatch(report_progress)
        outcome = _train(
            model,
            data,
            config,
            category=category,
            destination=destination,
            bake_patches=choices.bake_patches,
            watch=watch,
        )
        saved_as = destination.out.with_name(outcome.expert.name)
        return _output(outcome, _report(outcome, pairs, saved_as, choices.preset), saved_as)


def _category_of(pairs: SafetyPairs, category: str) -> str:
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


def _destination(choices: TrainWidgets, category: str) -> Destination:
    from ..training.trainer.train_expert import Destination, expert_name

    prefix = choices.filename_prefix or expert_name(category)
    root = host.output_folder()
    run_dir = host.private_folder("runs") / run_name(root, prefix)
    return Destination(new_expert_path(root, prefix), run_dir, choices.resume, reuse=True)


def _encode(
    pairs: SafetyPairs, encoders: host.Encoders, config: TrainConfig, resolution: int, on_progress: Any
) -> TrainingData:
    from ..training.pairs.encode import encode_pairs
    from ..training.trainer.kept import everyday_of

    return encode_pairs(
        pairs,
        encoders,
        resolution=resolution,
        mirrored=config.flip > 0,
        bucketed=config.buckets,
        everyday=everyday_of(config),
        cache_dir=host.private_folder("cache"),
        on_progress=on_progress,
    )


def _train(
    model: Any,
    data: TrainingData,
    config: TrainConfig,
    *,
    category: str,
    destination: Destination,
    bake_patches: bool,
    watch: TrainingWatch,
) -> _Outcome:
    from ..training.trainer.run import Callbacks
    from ..training.trainer.train_expert import Subject, train_expert

    lent = host.borrowed_unet(model, config.precision, bake_patches=bake_patches)
    with host.outside_inference_mode(), lent as base:
        expert, result = train_expert(
            base.unet,
            data,
            base.schedule,
            config,
            subject=Subject(category, base.family.name, base.weights_hash),
            destination=destination,
            callbacks=Callbacks(on_plan=watch.planned, on_progress=watch, check_cancel=host.check_cancel),
        )
        return _Outcome(expert, result, base.num_baked)


def _output(outcome: _Outcome, report: str, saved_as: Path) -> io.NodeOutput:
    result = outcome.result
    accuracy = (result.validation or {}).get("implicit_accuracy", host.Blocked(NOT_HELD_OUT))
    curve = draw_loss_curve(result.losses, held_out=held_out_accuracies(result.validations))
    shown = preview(report, host.image_tensor(curve))
    name = listed_name(host.output_folder(), saved_as)
    return io.NodeOutput(outcome.expert, {"loss": result.losses}, report, name, accuracy, ui=shown)


def _report(outcome: _Outcome, pairs: SafetyPairs, saved_as: Path, preset: str) -> str:
    expert, result, num_baked = outcome
    figures = ", ".join(
        f"{name} {value:.4g}"
        for name, value in result.metrics.items()
        if name not in ("step", "loss") and not name.startswith("validation_")  # they have their own lines
    )
    losses = f"loss {result.losses[0]:.4g} -> {result.losses[-1]:.4g}"
    lines = [
        REUSED if result.is_reused else "",
        f"saved as {saved_as.relative_to(host.output_folder()).as_posix()}",
        preset_text(preset),
        f"{num_baked} weights include patches of the MODEL as part of the base model" if num_baked else "",
        f"{len(result.losses)} steps in {duration(result.seconds)}, {losses}",
        f"plan: {result.plan.text()}",
        f"step {result.steps_done}: {figures}",
        f"held-out pairs: {result.validation_text()}",
        f"kept: {result.kept_text()}",
        f"pairs: {pairs.report.text()}",
        expert.report(),
    ]
    return "\n".join(line for line in lines if line)
