"""Node: Safety Benchmark."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..training.config import EvaluateConfig
from ..training.evaluation import RULES
from ..training.evaluation.blocked_words import is_blocked_words, read_blocked_words
from . import host, inputs
from .benchmarking import Drawing, Place, Variant, check_folder, measure
from .files import BENCHMARKS, blocked_words_path, file_fingerprint, input_files
from .inputs import (
    ABSENT,
    CATEGORY,
    NONE,
    check_strength,
    checked,
    config_inputs,
    connected,
    more_inputs,
    sampling_inputs,
    side_input,
    strength_input,
)
from .judging import (
    check_judges,
    clip_vision_input,
    judge_input,
    panel_of,
    second_judge_inputs,
    threshold_input,
)
from .shown.preview import preview

NOT_COMPARED = (
    "Safety Benchmark compared nothing: it needs an expert, and unsafe prompts of a category that a judge "
    "sees."
)
EXPERTS, SETS = range(1, 9), range(1, 5)


class SafetyBenchmark(io.ComfyNode):
    """Measure a model with and without its experts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardSafetyBenchmark",
            display_name="Safety Benchmark",
            category=CATEGORY,
            search_aliases=[
                "evaluate",
                "measure",
                "i2p",
                "inappropriate probability",
                "nsfw rate",
                "fid",
                "clip score",
                "alignguard",
            ],
            in_sight=(
                "judge",
                "folder",
                "sampler_name",
                "scheduler",
                "resolution",
                "per_prompt",
                "steps",
                "cfg",
            ),
            description="Measure how often a model draws unsafe pictures, with and without each expert, and "
            "what safety costs elsewhere. No unsafe picture is stored or shown. A stopped run can be "
            "continued.",
            inputs=[
                io.Model.Input("model", tooltip="The base model, without any expert."),
                io.Clip.Input("clip", tooltip="Encodes the prompts."),
                io.Vae.Input("vae", tooltip="Turns latents into pictures."),
                judge_input("judge", "Decides what is unsafe. Every number depends on it."),
                io.String.Input(
                    "folder",
                    default="my_benchmark",
                    tooltip=f"Folder of rows and report, below output/{BENCHMARKS}. A benchmark with the "
                    "same settings is continued, also with more experts; with other settings it is refused.",
                ),
                *sampling_inputs(),
                *(_set_input(number) for number in SETS),
                *(_expert_input(number) for number in EXPERTS),
                *(_strength_input(number) for number in EXPERTS),
                threshold_input("threshold"),
                *second_judge_inputs(
                    "A second judge, for what the first does not see.",
                    "For categories that both judges see: any flags more, all fewer, mean by the average "
                    "score.",
                ),
                clip_vision_input(),
                side_input(),
                *config_inputs(EvaluateConfig),
                io.Combo.Input(
                    "blocked_words",
                    options=[NONE, *input_files([host.input_folder()], is_blocked_words)],
                    default=NONE,
                    optional=True,
                    tooltip="A .txt below ComfyUI's input folder with words that a prompt filter would "
                    "block, one per line: measures how many unsafe pictures get past it. The report "
                    "quotes none of the words.",
                ),
                *more_inputs("expert", EXPERTS, "Further experts to compare with the base."),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="All rates with their intervals."),
                io.Image.Output(display_name="picture", tooltip="The report as a picture, to save."),
                io.Boolean.Output(
                    display_name="is_safer",
                    tooltip="Whether an expert is less often unsafe than the base, and not by chance alone "
                    "(sign test, p below 0.05).",
                ),
                io.Float.Output(
                    display_name="base_rate", tooltip="Share of the base's pictures that are unsafe."
                ),
                io.Float.Output(
                    display_name="lowest_rate", tooltip="The same of the expert that is unsafe least often."
                ),
                io.String.Output(display_name="safest", tooltip="Name of that expert."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        judge: str | None,
        folder: str | None,
        second_judge: str | None = NONE,
        blocked_words: str | None = NONE,
        clip_vision: object = ABSENT,
        more_experts: object = None,  # hosts that grow sockets always pass the group
    ) -> bool | str:
        return checked(
            (check_folder, folder),
            (_blocked_words_file, blocked_words),
            (partial(check_judges, has_clip_vision=clip_vision is None), [judge, second_judge]),
        )

    @classmethod
    def fingerprint_inputs(cls, blocked_words: str | None = None, **_: object) -> str:
        file = _blocked_words_file(blocked_words)
        return file_fingerprint(file) if file else ""

    @classmethod
    def execute(cls, judge: str, folder: str, **slots: Any) -> io.NodeOutput:
        drawing = Drawing.of(slots)
        file = _blocked_words_file(slots.get("blocked_words"))
        blocked = read_blocked_words(file) if file else None
        judges = [
            (judge, slots.get("threshold", 0.0)),
            (slots.get("second_judge", NONE), slots.get("second_threshold", 0.0)),
        ]
        models = {"clip_vision": slots.get("clip_vision"), "vae": slots.get("vae")}
        panel = panel_of(judges, slots.get("combination", RULES[0]), **models)
        sets = [slots[f"prompts_{n}"] for n in SETS if slots.get(f"prompts_{n}") is not None]
        place = Place(folder, "Safety Benchmark", cls.hidden.unique_id)
        report = measure(drawing, _variants(slots), sets, panel, place, blocked)
        picture, text = host.image_tensor(report.write()), f"{report.text()}\n{report.study.command}"
        comparison = report.comparison() or [host.Blocked(NOT_COMPARED)] * 4
        return io.NodeOutput(text, picture, *comparison, ui=preview(text, picture))


def _blocked_words_file(name: str | None) -> Path | None:
    """Return the chosen file; None if none is chosen, or the name comes through a link."""
    return None if name in (None, NONE) else blocked_words_path(host.input_folder(), name)


def _variants(slots: Mapping[str, Any]) -> list[Variant]:
    """Return each connected expert with its strength."""
    variants = []
    for slot in connected(slots, "expert", EXPERTS):
        check_strength(slot.strength, slot.strength_name)
        variants.append([(slot.value, slot.strength)])
    return variants


def _set_input(number: int) -> io.Input:
    what = "What to measure on: unsafe prompts" if number == 1 else "More prompts, such as neutral ones"
    return inputs.PromptSet.Input(
        f"prompts_{number}", optional=number != 1, tooltip=f"{what}. From Load Prompt Set."
    )


def _expert_input(number: int) -> io.Input:
    return inputs.SafetyExpert.Input(
        f"expert_{number}", optional=True, tooltip="An expert, single or merged, to compare with the base."
    )


def _strength_input(number: int) -> io.Input:
    return strength_input(
        f"strength_{number}", f"How strongly expert_{number} acts: 1 is as trained.", optional=True
    )
