"""Node: Merge Safety Experts."""

from collections.abc import Sequence
from typing import NamedTuple

from comfy_api.latest import io

from ..training.config import MergeConfig, option_help
from ..training.experts.expert import SafetyExpert, check_family
from ..training.merging import (
    MERGE_METHODS,
    CalibrationPrompts,
    Statistics,
    StatisticsStore,
    calibrated_methods,
    calibration_prompts,
    collect_statistics,
    merge_experts,
    plain_methods,
)
from . import host, inputs
from .inputs import (
    CATEGORY,
    DEFAULT_RESOLUTION,
    check_strength,
    config_inputs,
    resolution_input,
    strength_input,
)
from .shown.expert_display import expert_display

NUMBERS = range(1, 9)  # AlignGuard has seven categories, and one more
REQUIRED = (1, 2)
ONLY_FOR = f"Only for {calibrated_methods()}"


class _Base(NamedTuple):
    """What calibration runs: the sockets of a checkpoint, and the size of its pictures."""

    model: object
    clip: object
    vae: object
    resolution: int


class MergeSafetyExperts(io.ComfyNode):
    """Combine experts of several categories into one LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AlignGuardMergeSafetyExperts",
            display_name="Merge Safety Experts",
            category=CATEGORY,
            description="Combine safety experts of one base model into a single LoRA.",
            inputs=[
                *(_expert_input(number) for number in NUMBERS),
                io.Combo.Input(
                    "method",
                    options=list(MERGE_METHODS),
                    default=MergeConfig.method,
                    tooltip=option_help(MergeConfig, "method"),
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip=f"{ONLY_FOR}: the base model of the experts, straight from its loader.",
                ),
                io.Clip.Input("clip", optional=True, tooltip=f"{ONLY_FOR}: encodes the calibration prompts."),
                io.MultiType.Input(
                    "calibration",
                    types=[inputs.SafetyPairs, io.String],
                    optional=True,
                    tooltip=f"{ONLY_FOR}: the prompts on which the experts are compared: safety pairs, or "
                    "text with one prompt a line that may begin with its category, as in 'violence: ...' or "
                    "'neutral: ...'. Use unsafe prompts of every category, equally many.",
                ),
                *(_strength_input(number) for number in NUMBERS),
                resolution_input(
                    f"{ONLY_FOR}: picture size of the calibration runs. Lower is faster and further from "
                    "what the model was made for."
                ),
                *config_inputs(MergeConfig, skip=("method",)),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip=f"{ONLY_FOR}, with safety pairs: compares experts on the pairs' pictures with "
                    "noise added. Unconnected: on what the base model draws itself from their prompts.",
                ),
            ],
            outputs=[
                inputs.SafetyExpert.Output(display_name="expert", tooltip="One expert of all categories."),
                io.String.Output(
                    display_name="report", tooltip="Members, winners per layer, ranks and norms."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        method: str,
        model: object = None,
        clip: object = None,
        calibration: object = None,
        resolution: int = DEFAULT_RESOLUTION,
        vae: object = None,
        **slots: object,  # expert_1..8, strength_1..8 and the options of MergeConfig
    ) -> io.NodeOutput:
        used = [n for n in NUMBERS if slots.get(f"expert_{n}") is not None]
        experts = [slots[f"expert_{n}"] for n in used]
        strengths = [slots.get(f"strength_{n}", 1.0) for n in used]
        for n, strength in zip(used, strengths, strict=True):
            check_strength(strength, f"strength_{n}")
        settings = {
            name: value for name, value in slots.items() if not name.startswith(("expert_", "strength_"))
        }
        config = MergeConfig(method=method, **settings)
        report = host.progress(cls.hidden.unique_id)
        statistics, notes = None, []
        several = sum(strength > 0 for strength in strengths) > 1  # a single expert has no rival
        if several and method in MERGE_METHODS and MERGE_METHODS[method].needs_statistics:
            _check_connected(method, model=model, clip=clip, calibration=calibration)
            prompts, num_dropped = _prompts(calibration, config)
            if num_dropped:
                notes = [f"calibration lines dropped by the rule on minors: {num_dropped}"]
            base = _Base(model, clip, vae, resolution)
            statistics = _calibrate(experts, strengths, config, base, prompts, report)
        merged = merge_experts(
            experts, config, strengths=strengths, statistics=statistics, on_progress=report
        )
        text = "\n".join([merged.report(), *notes])
        return io.NodeOutput(merged, text, ui=expert_display(merged, text))


def _calibrate(
    experts: Sequence[SafetyExpert],
    strengths: Sequence[float],
    config: MergeConfig,
    base: _Base,
    calibration: CalibrationPrompts,
    on_progress: object,
) -> Statistics:
    model, clip, vae, resolution = base
    for expert in experts:
        check_family(expert, *host.family_of(model))
    family = host.check_trainable(model)
    encoded = host.encode_prompts(clip, calibration.prompts, family, on_progress)
    latents = None
    if vae is not None and calibration.pictures:
        latents = _encoded(host.encoders(model, clip, vae, family), calibration, resolution, on_progress)
    # fp32, as the command line: which expert wins must not depend on what the host rounded
    with host.outside_inference_mode(), host.borrowed_unet(model, "fp32") as borrowed:
        return collect_statistics(
            borrowed.unet,
            borrowed.family.schedule(),
            experts,
            encoded,
            config,
            latent_shape=(family.latent_channels, resolution // 8, resolution // 8),
            strengths=strengths,
            categories=calibration.categories,
            pictures=latents,
            base_hash=borrowed.weights_hash,
            store=StatisticsStore(host.private_folder("cache"), borrowed.weights_hash),
            on_progress=on_progress,
        )


def _encoded(
    coders: host.Encoders, calibration: CalibrationPrompts, resolution: int, on_progress: object
) -> list:
    from ..training.pairs.encode import encode_pictures

    return encode_pictures(
        calibration.pictures,
        encode_image=coders.image,
        encoder_id=coders.id,
        resolution=resolution,
        cache_dir=host.private_folder("cache"),
        on_progress=on_progress,
    )


def _prompts(calibration: object, config: MergeConfig) -> tuple[CalibrationPrompts, int]:
    """Return the prompts to run, and how many the rule on minors dropped here; of pairs, loading did."""
    from ..training.pairs.prompts import parse_prompts

    if isinstance(calibration, str):
        found = parse_prompts(calibration)
        return CalibrationPrompts(found.prompts, found.categories), found.num_dropped
    neutral = [(sample.prompt, sample.image) for sample in calibration.neutral]
    return calibration_prompts(calibration.pairs, config, neutral), 0


def _check_connected(method: str, **sockets_of: object) -> None:
    missing = [name for name, value in sockets_of.items() if value is None]
    if missing:
        raise ValueError(
            f"{method} compares the experts on the base model, so it needs {', '.join(missing)} connected "
            f"too. Connect it, or set method to one of {plain_methods()}."
        )


def _expert_input(number: int) -> io.Input:
    place = "An expert of one category." if number in REQUIRED else "Another expert, of the same base model."
    return inputs.SafetyExpert.Input(
        f"expert_{number}", optional=number not in REQUIRED, tooltip=f"{place} The order does not matter."
    )


def _strength_input(number: int) -> io.Input:
    return strength_input(
        f"strength_{number}",
        f"Weight of expert_{number} in the merge: higher lets it win more of the model, 0 leaves it out.",
        optional=True,
    )
