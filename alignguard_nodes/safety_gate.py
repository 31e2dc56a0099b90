"""Node: Safety Gate."""

from functools import partial
from typing import Any

from comfy_api.latest import io, ui

from ..training.evaluation import ACTIONS, RULES, describe, let_through, scan
from . import host
from .inputs import ABSENT, CATEGORY, NONE, checked
from .judging import (
    check_judges,
    clip_vision_input,
    judge_input,
    panel_of,
    scopes_input,
    second_judge_inputs,
    threshold_input,
)


class SafetyGate(io.ComfyNode):
    """Let pictures through to be saved, but not the unsafe ones."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardSafetyGate",
            display_name="Safety Gate",
            category=CATEGORY,
            search_aliases=[
                "nsfw filter",
                "safety checker",
                "block",
                "censor",
                "blur",
                "video",
                "alignguard",
            ],
            description="Stand between VAE Decode and Save: unsafe pictures or frames leave blurred, black "
            "or not at all (after the idea of T2VShield). Judges err in both directions: no guarantee.",
            inputs=[
                io.Image.Input("images", tooltip="From VAE Decode: pictures, or the frames of one clip."),
                judge_input("judge", "Each judge sees only some categories; the report names them."),
                threshold_input("threshold"),
                io.Combo.Input(
                    "action",
                    options=list(ACTIONS),
                    default=ACTIONS[0],
                    tooltip="For unsafe pictures. blur and black: they pass so, the others unchanged. stop: "
                    "if one is unsafe, none passes, and nothing after this node runs.",
                ),
                scopes_input("tiles"),
                *second_judge_inputs(
                    "A second judge, for categories that the first does not see, or as a second opinion.",
                    "Where both judges see a category: any stops most, all stops least, mean goes by the "
                    "average score.",
                ),
                clip_vision_input(),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="For Save Image or a video writer."),
                io.Boolean.Output(display_name="blocked", tooltip="Whether any picture is unsafe."),
                io.String.Output(
                    display_name="report", tooltip="The judges, what they found, and in which pictures."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls, judge: str | None, second_judge: str | None = NONE, clip_vision: object = ABSENT
    ) -> bool | str:
        has_clip_vision = clip_vision is None
        return checked((partial(check_judges, has_clip_vision=has_clip_vision), [judge, second_judge]))

    @classmethod
    def execute(
        cls,
        images: Any,
        judge: str,
        threshold: float = 0.0,
        action: str = ACTIONS[0],
        scopes: str = "tiles",
        **second: Any,  # second_judge, second_threshold, combination and clip_vision
    ) -> io.NodeOutput:
        chosen = [(judge, threshold), (second.get("second_judge", NONE), second.get("second_threshold", 0.0))]
        panel = panel_of(chosen, second.get("combination", RULES[0]), second.get("clip_vision"))
        pictures = host.pictures_of(images)
        scanned = scan(panel, pictures, scopes, host.progress(cls.hidden.unique_id))
        unsafe = scanned.verdict.flagged()
        report = describe(panel, scanned.verdict, findings=scanned.findings)
        passed = let_through(pictures, unsafe, action)
        out = host.Blocked(f"Safety Gate stopped: {report}") if passed is None else host.image_of(passed)
        return io.NodeOutput(out, bool(unsafe.any()), report, ui=ui.PreviewText(report))
