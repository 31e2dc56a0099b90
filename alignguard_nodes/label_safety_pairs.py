"""Node: Label Safety Pairs."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..training.config import LabelConfig
from ..training.evaluation import RULES
from . import host
from .inputs import ABSENT, CATEGORY, NONE, SafetyPairs, checked, config_inputs, from_widgets
from .judging import check_judges, clip_vision_input, judge_input, panel_of
from .shown.label_picture import draw_labels
from .shown.preview import preview

UNLABELLED = "not labelled: no endpoint is named, so the pairs go on as they are."


class LabelSafetyPairs(io.ComfyNode):
    """Let a vision-language model say which pairs are right, reversed or neither."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardLabelSafetyPairs",
            display_name="Label Safety Pairs",
            category=CATEGORY,
            search_aliases=["vlm", "llm", "clean dataset", "relabel", "quarantine", "mis", "alignguard"],
            description="Ask a vision-language model on this machine which pairs are right, reversed or "
            "neither (the protocol of MIS). Off until you name an endpoint. No picture is shown.",
            inputs=[
                SafetyPairs.Input("pairs", tooltip="From Load or Make Safety Pairs."),
                io.String.Input(
                    "endpoint",
                    default="",
                    tooltip="URL of an OpenAI-compatible server on this machine, such as "
                    "http://127.0.0.1:11434/v1. Other machines are refused. Empty opens no connection, and "
                    "the pairs go on as they are.",
                ),
                io.String.Input(
                    "endpoint_model",
                    default="",
                    tooltip="Name of the vision-language model on that server.",
                ),
                *config_inputs(LabelConfig),
                judge_input(
                    "judge",
                    "A second judge: the report says how far both agree (Cohen's kappa). It decides nothing.",
                    optional=True,
                    may_be_none=True,
                ),
                clip_vision_input(),
            ],
            outputs=[
                SafetyPairs.Output(
                    display_name="pairs", tooltip="Right pairs, and reversed ones with pictures exchanged."
                ),
                io.String.Output(display_name="report", tooltip="What became of the pairs, and why."),
                io.Image.Output(display_name="picture", tooltip="The outcomes of each category."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        endpoint: str | None,
        endpoint_model: str | None,
        judge: str | None = NONE,
        clip_vision: object = ABSENT,
    ) -> bool | str:
        return checked(
            (partial(_check_endpoint, endpoint_model), endpoint),
            (partial(check_judges, has_clip_vision=clip_vision is None), [judge]),
        )

    @classmethod
    def execute(
        cls, pairs: Any, endpoint: str, endpoint_model: str, judge: str = NONE, **widgets: Any
    ) -> io.NodeOutput:
        from ..training.making.label_pairs import LabelReport, label_pairs
        from ..training.making.local_endpoint import open_endpoint

        (config,) = from_widgets(widgets, LabelConfig)
        if not endpoint.strip():
            labelled, report, text = pairs, LabelReport(), UNLABELLED
        else:
            labelled, report = label_pairs(
                pairs,
                open_endpoint(endpoint, endpoint_model),  # only this machine: a graph may be a stranger's
                _folder(pairs.content_hash, endpoint_model, config),
                config,
                panel=panel_of([(judge, 0.0)], RULES[0], widgets.get("clip_vision")),
                on_progress=host.progress(cls.hidden.unique_id),
            )
            text = report.text()
        picture = host.image_tensor(draw_labels(report.per_category))
        return io.NodeOutput(labelled, text, picture, ui=preview(text, picture))


def _check_endpoint(model: str | None, url: str) -> None:
    from ..training.making.local_endpoint import open_endpoint

    if url.strip() and model is not None:
        open_endpoint(url, model)


def _folder(pairs_hash: str, model: str, config: LabelConfig) -> Path:
    """Return where the answers of a run are kept: the same for the same pairs, model and options."""
    settings = f"{pairs_hash} {model} {config.controls} {config.seed}"
    return host.private_folder("labels") / hashlib.sha256(settings.encode()).hexdigest()[:16]
