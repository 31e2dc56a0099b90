"""Node: Merge Safety Experts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from comfy_api.latest import io

from ..training.config import MergeConfig, option_help
from ..training.experts.expert import check_family
from ..training.merging import (
    MERGE_METHODS,
    BaseNetwork,
    CalibrationInputs,
    CalibrationPrompts,
    Members,
    Statistics,
    StatisticsStore,
    calibrated_methods,
    calibration_prompts,
    collect_statistics,
    listed_prompts,
    merge_experts,
    needs_statistics,
    plain_methods,
)
from ..training.models.conditioning import LATENT_STEP
from . import host, inputs
from .inputs import (
    ABSENT,
    CATEGORY,
    DEFAULT_RESOLUTION,
    check_strength,
    checked,
    config_inputs,
    connected,
    from_widgets,
    more_inputs,
    resolution_input,
    strength_input,
)
from .shown.preview import expert_preview

NUMBERS = range(1, 9)  # AlignGuard has seven categories, and one more
REQUIRED = (1, 2)
ONLY_FOR = f"Only for {calibrated_methods()}"


class MergeSafetyExperts(io.ComfyNode):
    """Combine experts of several categories into one LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardMergeSafetyExperts",
            display_name="Merge Safety Experts",
            category=CATEGORY,
            search_aliases=[
                "combine loras",
                "lora merge",
                "co-merge",
                "regmean",
                "ties",
                "dare",
                "alignguard",
            ],
            in_sight=(
                "method",
                "strength_1",
                "strength_2",
                "strength_3",
                "strength_4",
                "output_rank",
                "resolution",
            ),
            description="Combine safety experts of one base model into a single LoRA.",
            inputs=[
                *(_expert_input(number) for number in NUMBERS),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip=f"{ONLY_FOR}: the base model of the experts, directly from its loader.",
                ),
                io.Clip.Input("clip", optional=True, tooltip=f"{ONLY_FOR}: encodes the calibration prompts."),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip=f"{ONLY_FOR}, with safety pairs: compares the experts on the pairs' images with "
                    "noise added. If not connected, they are compared on what the base model draws from the "
                    "prompts.",
                ),
                io.MultiType.Input(
                    "calibration",
                    types=[inputs.SafetyPairs, io.String],
                    optional=True,
                    tooltip=f"{ONLY_FOR}: the prompts on which the experts are compared. Safety pairs, or "
                    "text with one prompt per line, which may begin with its category, as in 'violence: ...' "
                    "or 'neutral: ...'. Use unsafe prompts of every category, equally many of each. Without "
                    "neutral ones, regmean takes everyday prompts that come with the pack.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(MERGE_METHODS),
                    default=MergeConfig.method,
                    tooltip=option_help(MergeConfig, "method"),
                ),
                *(_strength_input(number) for number in NUMBERS),
                *config_inputs(MergeConfig, skip=("method",), before={"timesteps": [_resolution_input()]}),
                *more_inputs("expert", NUMBERS, "Further experts of the same base model."),
            ],
            outputs=[
                inputs.SafetyExpert.Output(
                    display_name="expert", tooltip="One expert for all categories of its members."
                ),
                io.String.Output(
                    display_name="report", tooltip="Members, winners per layer, ranks and norms."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        method: str | None,
        strength_1: float | None = 1.0,
        strength_2: float | None = 1.0,
        model: object = ABSENT,
        clip: object = ABSENT,
        calibration: object = ABSENT,
        more_experts: object = None,  # hosts that grow sockets always pass the group
    ) -> bool | str:
        sockets = {"model": model, "clip": clip, "calibration": calibration}
        missing = [name for name, value in sockets.items() if value is ABSENT]
        take_part = [strength for strength in (strength_1, strength_2) if strength]  # None: not known yet
        return checked(
            (partial(check_strength, name="strength_1"), strength_1),
            (partial(check_strength, name="strength_2"), strength_2),
            (lambda name: refuse_uncalibrated(name, len(take_part), missing), method),
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
        used = list(connected(slots, "expert", NUMBERS))
        for slot in used:
            check_strength(slot.strength, slot.strength_name)
        (config,) = from_widgets({**slots, "method": method}, MergeConfig)
        on_progress = host.progress(cls.hidden.unique_id)
        calibration_run = _Calibration(model, clip, vae, calibration, resolution, config, on_progress)
        merged = merge_experts(
            [slot.value for slot in used],
            config,
            strengths=[slot.strength for slot in used],
            calibrate=calibration_run.statistics,
            on_progress=on_progress,
        )
        text = "\n".join([merged.report(), *calibration_run.notes])
        return io.NodeOutput(merged, text, ui=expert_preview(merged, text))


@dataclass
class _Calibration:
    """The node's calibration inputs, used only if the merge asks for statistics.

    `notes` holds lines for the report.
    """

    model: object
    clip: object
    vae: object
    source: object  # safety pairs or text
    resolution: int
    config: MergeConfig
    on_progress: object
    notes: list[str] = field(default_factory=list)

    def statistics(self, members: Members) -> Statistics:
        """Run the base model on the calibration prompts."""
        self._check_connected(len(members))
        prompts = self._prompts()
        for expert, _ in members:
            check_family(expert, *host.family_of(self.model))
        family = host.check_trainable(self.model)
        encoded = host.encode_prompts(self.clip, prompts.prompts, family, self.on_progress)
        latents = None
        if self.vae is not None and prompts.pictures:
            latents = self._encoded(host.encoders(self.model, self.clip, self.vae, family), prompts)
        side = self.resolution // LATENT_STEP
        shape = (family.latent_channels, side, side)
        # fp32, as on the command line: the choice of an expert must not depend on the host's rounding
        with host.outside_inference_mode(), host.borrowed_unet(self.model, "fp32") as borrowed:
            return collect_statistics(
                BaseNetwork(borrowed.unet, borrowed.family.schedule(), borrowed.weights_hash),
                CalibrationInputs(encoded, shape, prompts.categories, latents, prompts.neutral),
                members,
                self.config,
                store=StatisticsStore(host.private_folder("cache")),
                on_progress=self.on_progress,
            )

    def _check_connected(self, num_members: int) -> None:
        sockets = {"model": self.model, "clip": self.clip, "calibration": self.source}
        missing = [name for name, value in sockets.items() if value is None]
        refuse_uncalibrated(self.config.method, num_members, missing)

    def _prompts(self) -> CalibrationPrompts:
        from ..training.pairs.prompts import parse_prompts

        if isinstance(self.source, str):
            parsed = parse_prompts(self.source)
            if parsed.num_dropped:  # safety pairs were filtered when they were loaded
                self.notes.append(f"calibration lines dropped by the rule on minors: {parsed.num_dropped}")
            return listed_prompts(parsed, self.config)
        neutral = [(sample.prompt, sample.image) for sample in self.source.neutral]
        return calibration_prompts(self.source.pairs, self.config, neutral)

    def _encoded(self, encoders: host.Encoders, prompts: CalibrationPrompts) -> list:
        from ..training.pairs.encode import encode_pictures

        return encode_pictures(
            prompts.pictures,
            encoders,
            resolution=self.resolution,
            cache_dir=host.private_folder("cache"),
            on_progress=self.on_progress,
        )


def refuse_uncalibrated(method: str, num_members: int, missing: Sequence[str]) -> None:
    """Check that a merge has what it compares the experts on.

    Args:
        method: name of the merge method.
        num_members: experts that take part, or the fewest that surely do.
        missing: sockets for calibration that are not connected.

    Raises:
        ValueError: if the method is unknown, or needs one of these sockets.
    """
    if method not in MERGE_METHODS:
        raise ValueError(f"method must be one of {', '.join(MERGE_METHODS)}, got {method!r}.")
    if missing and needs_statistics(method, num_members):
        raise ValueError(
            f"{method} compares the experts on the base model, so it needs {', '.join(missing)} connected "
            f"too. Connect it, or set method to one of {plain_methods()}."
        )


def _expert_input(number: int) -> io.Input:
    which = "An expert of one category." if number in REQUIRED else "Another expert of the same base model."
    return inputs.SafetyExpert.Input(
        f"expert_{number}", optional=number not in REQUIRED, tooltip=f"{which} The order does not matter."
    )


def _strength_input(number: int) -> io.Input:
    return strength_input(
        f"strength_{number}",
        f"Weight of expert_{number} in the merge. Higher lets it win more of the model; 0 leaves it out.",
        optional=True,
    )


def _resolution_input() -> io.Input:
    return resolution_input(
        f"{ONLY_FOR}: image size of the calibration runs. Lower is faster and further from what the model "
        "was trained for."
    )
