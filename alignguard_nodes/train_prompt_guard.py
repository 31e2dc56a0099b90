"""Node: Train Prompt Guard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..training.config import GuardConfig
from . import host, inputs
from .files import SAVED_GUARDS, new_expert_path
from .inputs import ABSENT, CATEGORY, checked, config_inputs, from_widgets
from .shown.guard_picture import draw_guard
from .shown.preview import preview

if TYPE_CHECKING:
    from ..training.guards import GuardEncoder
    from ..training.guards.concept_data import ConceptData
    from ..training.pairs import SafetyPairs

PREFIX = "guard"


class TrainPromptGuard(io.ComfyNode):
    """Train a guard on prompts and their safe twins, and save it at once."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardTrainPromptGuard",
            display_name="Train Prompt Guard",
            category=CATEGORY,
            search_aliases=["latent guard", "nsfw filter", "prompt filter", "concept list", "alignguard"],
            in_sight=(
                "text",
                "harmless",
                "filename_prefix",
                "encoder",
                "steps",
                "target_fpr",
                "holdout",
                "store_concepts",
            ),
            description="Train a guard that blocks prompts near the concepts of a list (Latent Guard), and "
            "set how many harmless prompts it may block. The result is saved to output/safety_guards.",
            inputs=[
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    tooltip="One sample a line: `concept | unsafe prompt | the same prompt made safe`. More "
                    "prompts of a concept teach it better. Ignored if pairs are connected.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The CLIP of the checkpoint to guard, directly from its loader. Not needed for "
                    "the encoder sentence.",
                ),
                inputs.SafetyPairs.Input(
                    "pairs",
                    optional=True,
                    tooltip="From Load Safety Pairs, in place of text: the words in which the two prompts of "
                    "a pair differ become its concept.",
                ),
                io.String.Input(
                    "harmless",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="One prompt a line that must not be blocked; the threshold is set on them. Use "
                    "what you normally draw. Empty takes everyday prompts that come with the pack.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default=PREFIX,
                    optional=True,
                    tooltip="Name of the file in output/safety_guards. A counter is added, and no file is "
                    "overwritten.",
                ),
                *config_inputs(GuardConfig),
            ],
            outputs=[
                inputs.PromptGuard.Output(
                    display_name="guard", tooltip="For Prompt Guard. It is already saved."
                ),
                io.String.Output(
                    display_name="saved_as", tooltip="Name of the file, as Prompt Guard lists it."
                ),
                io.String.Output(
                    display_name="report", tooltip="Held-out figures and the threshold; it repeats no prompt."
                ),
                io.Image.Output(display_name="picture", tooltip="Scores of held-out and harmless prompts."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls, text: str | None, pairs: Any = ABSENT, filename_prefix: str | None = PREFIX
    ) -> bool | str:
        from ..training.guards.concept_data import parse_concepts

        return checked(
            (parse_concepts, text if pairs is ABSENT else None),
            (lambda prefix: new_expert_path(host.output_folder(), prefix, SAVED_GUARDS), filename_prefix),
        )

    @classmethod
    def execute(
        cls, text: str, clip: Any = None, pairs: SafetyPairs | None = None, **widgets: Any
    ) -> io.NodeOutput:
        from ..training.guards import save_guard
        from ..training.guards.train_concept import train_concept_guard

        (config,) = from_widgets(widgets, GuardConfig)
        output = host.output_folder()
        path = new_expert_path(output, widgets.get("filename_prefix", PREFIX), SAVED_GUARDS)
        report_progress = host.progress(cls.hidden.unique_id)
        with host.outside_inference_mode():
            data = _data(text, pairs)
            trained = train_concept_guard(
                data,
                _encoder(config.encoder, clip),
                config,
                harmless=_harmless(widgets.get("harmless", "")),
                cache=host.private_folder("cache"),
                on_progress=lambda stage, done, total: report_progress(done, total),
            )
        save_guard(trained.guard, path)
        name = path.relative_to(output / SAVED_GUARDS).as_posix()
        report = "\n".join([f"saved as {SAVED_GUARDS}/{name}", data.report(), trained.report()])
        picture = host.image_tensor(draw_guard(trained.scores, trained.guard.threshold))
        return io.NodeOutput(trained.guard, name, report, picture, ui=preview(report, picture))


def _data(text: str, pairs: SafetyPairs | None) -> ConceptData:
    from ..training.guards.concept_data import concepts_of_pairs, parse_concepts

    if pairs is None:
        return parse_concepts(text)
    return concepts_of_pairs(
        (
            pair.id,
            {
                "unsafe_prompt": pair.unsafe_prompt,
                "safe_prompt": pair.safe_prompt,
                "category": list(pair.categories),
            },
        )
        for pair in pairs.pairs
    )


def _encoder(kind: str, clip: Any) -> GuardEncoder:
    from ..training.guards import sentence_encoder

    return sentence_encoder() if kind == "sentence" else host.guard_encoder(clip)


def _harmless(text: str) -> list[str]:
    from ..training.pairs.everyday import everyday_prompts
    from ..training.pairs.prompts import parse_prompts

    return list(parse_prompts(text).prompts) if text.strip() else list(everyday_prompts())
