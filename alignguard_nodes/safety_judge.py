"""Node: Safety Judge."""

from functools import partial
from typing import Any

from comfy_api.latest import io

from ..training.evaluation import RULES, Panel, describe, hidden_pictures, scan
from ..training.rules.categories import CATEGORIES, normalize_category
from . import host
from .inputs import ABSENT, CATEGORY, NONE, SafetyCost, checked
from .judging import (
    check_judges,
    clip_vision_input,
    judge_input,
    panel_of,
    scopes_input,
    second_judge_inputs,
    threshold_input,
)
from .shown.preview import preview

ALL = "all"


class SafetyJudge(io.ComfyNode):
    """Score images, and show the unsafe ones blurred."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardSafetyJudge",
            display_name="Safety Judge",
            category=CATEGORY,
            search_aliases=[
                "nsfw detector",
                "nudity",
                "classifier",
                "safety checker",
                "gate",
                "filter",
                "q16",
                "nudenet",
                "alignguard",
            ],
            in_sight=("judge", "threshold", "second_judge", "category", "scopes", "blur"),
            description="Score how unsafe pictures are. Judges err in both directions: this is advice, never "
            "a guarantee.",
            inputs=[
                io.Image.Input("images", tooltip="The pictures, or the frames of a video in order."),
                judge_input("judge", "Each judge sees only some categories; the report names them."),
                threshold_input("threshold"),
                *second_judge_inputs(
                    "A second judge, for categories that the first does not see, or as a second opinion.",
                    "Where both judges see a category: any flags most, all flags least, mean goes by the "
                    "average score.",
                ),
                io.Combo.Input(
                    "category",
                    options=[ALL, *CATEGORIES],
                    default=ALL,
                    optional=True,
                    tooltip="Judge only this category. If no judge sees it, it is not measured.",
                ),
                scopes_input("frames"),
                io.Boolean.Input(
                    "blur",
                    default=True,
                    optional=True,
                    tooltip="On: pictures that are unsafe or not measured are blurred in the preview. Off: "
                    "they are shown and stored as they are.",
                ),
                clip_vision_input(),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Only for safety_cost from a file that was trained on a VAE.",
                ),
                SafetyCost.Input(
                    "cost",
                    optional=True,
                    tooltip="From Train Safety Cost, for the judge safety_cost. Without it the judge is "
                    "models/safety_judges/safety_cost.safetensors.",
                ),
            ],
            outputs=[
                io.Boolean.Output(
                    display_name="flags", is_output_list=True, tooltip="Unsafe or not, per picture."
                ),
                io.Float.Output(
                    display_name="scores", is_output_list=True, tooltip="0 safe to 1 unsafe, per picture."
                ),
                io.Image.Output(display_name="preview", tooltip="The pictures, unsafe ones blurred."),
                io.String.Output(
                    display_name="report", tooltip="The judges, their thresholds and the result per category."
                ),
                io.Boolean.Output(
                    display_name="any_unsafe", tooltip="Whether any picture is unsafe, for one gate over all."
                ),
                io.Float.Output(display_name="highest_score", tooltip="The highest score of any picture."),
                io.String.Output(
                    display_name="unsafe_categories",
                    tooltip="Categories of the unsafe pictures, separated by commas; empty if all are safe.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        judge: str | None,
        second_judge: str | None = NONE,
        category: str | None = ALL,
        clip_vision: object = ABSENT,
    ) -> bool | str:
        return checked(
            (normalize_category, category),  # API prompts may name the user's own categories
            (partial(check_judges, has_clip_vision=clip_vision is None), [judge, second_judge]),
        )

    @classmethod
    def execute(
        cls,
        images: Any,
        category: str = ALL,
        scopes: str = "frames",
        blur: bool = True,
        **judges: Any,  # judge to combination, and the models that judges read
    ) -> io.NodeOutput:
        panel = _panel(**judges)
        pictures = host.pictures_of(images)
        scanned = scan(panel, pictures, scopes, host.progress(cls.hidden.unique_id))
        verdict = scanned.verdict
        wanted = () if category == ALL else (normalize_category(category),)
        report = describe(panel, verdict, wanted, scanned.findings)
        flags, scores = verdict.flagged(wanted), verdict.score(wanted)
        hidden = None if flags is None else flags | verdict.flagged()  # unsafe in any category
        shown = host.image_of(hidden_pictures(pictures, hidden) if blur else pictures)
        if flags is None or scores is None:
            blocked = host.Blocked(f"{category} was not measured: {judges['judge']} does not see it.")
            per_picture, over_all = [[blocked], [blocked]], [blocked] * 3
        else:
            per_picture = [flags.tolist(), scores.tolist()]
            categories = ", ".join(verdict.unsafe_categories(wanted))
            over_all = [any(per_picture[0]), max(per_picture[1], default=0.0), categories]
        return io.NodeOutput(*per_picture, shown, report, *over_all, ui=preview(report, shown))


def _panel(
    judge: str,
    threshold: float = 0.0,
    second_judge: str = NONE,
    second_threshold: float = 0.0,
    combination: str = RULES[0],
    **models: Any,
) -> Panel | None:
    return panel_of([(judge, threshold), (second_judge, second_threshold)], combination, **models)
