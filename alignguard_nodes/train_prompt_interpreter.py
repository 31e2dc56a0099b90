"""Node: Train Prompt Interpreter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..training.config import InterpretConfig
from . import host, inputs
from .files import SAVED_GUARDS, new_expert_path
from .inputs import ABSENT, CATEGORY, checked, config_inputs, from_widgets
from .shown.loss_curve import draw_loss_curve
from .shown.preview import preview

if TYPE_CHECKING:
    from ..training.evaluation.prompt_sets import PromptSet
    from ..training.pairs import SafetyPairs

PREFIX = "interpreter"


class TrainPromptInterpreter(io.ComfyNode):
    """Train an interpreter on captions of every kind, and save it at once."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardTrainPromptInterpreter",
            display_name="Train Prompt Interpreter",
            category=CATEGORY,
            search_aliases=[
                "guardt2i",
                "nsfw filter",
                "prompt filter",
                "jailbreak",
                "captions",
                "alignguard",
            ],
            in_sight=(
                "captions",
                "harmless",
                "filename_prefix",
                "size",
                "steps",
                "target_fpr",
                "holdout",
            ),
            description="Train a decoder that says what CLIP understood of a prompt (GuardT2I), and set how "
            "many harmless prompts it may block. Needs no unsafe prompts. Saved to output/safety_guards.",
            inputs=[
                io.String.Input(
                    "captions",
                    default="",
                    multiline=True,
                    tooltip="Prompts of every kind, one a line, such as your earlier ones. It can only say "
                    "words that occur here, so do not leave out the words that you will block.",
                ),
                io.Clip.Input(
                    "clip", tooltip="The CLIP of the checkpoint to guard, directly from its loader."
                ),
                inputs.PromptSet.Input(
                    "prompts", optional=True, tooltip="From Load Prompt Set: further captions, from a file."
                ),
                inputs.SafetyPairs.Input(
                    "pairs",
                    optional=True,
                    tooltip="From Load Safety Pairs: both prompts of every pair are further captions.",
                ),
                io.String.Input(
                    "harmless",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="One prompt a line that must not be blocked; the threshold is set on those that "
                    "are no captions. Empty sets it on the captions that are held out.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default=PREFIX,
                    optional=True,
                    tooltip="Name of the file in output/safety_guards. A counter is added, and no file is "
                    "overwritten.",
                ),
                *config_inputs(InterpretConfig),
            ],
            outputs=[
                inputs.PromptGuard.Output(
                    display_name="interpreter", tooltip="For Prompt Interpreter. It is already saved."
                ),
                io.String.Output(
                    display_name="saved_as", tooltip="Name of the file, as Prompt Interpreter lists it."
                ),
                io.String.Output(
                    display_name="report", tooltip="Held-out figures and the threshold; it repeats no prompt."
                ),
                io.Image.Output(display_name="picture", tooltip="The loss over the steps."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        captions: str | None,
        prompts: Any = ABSENT,
        pairs: Any = ABSENT,
        harmless: str | None = "",
        filename_prefix: str | None = PREFIX,
    ) -> bool | str:
        has_more = prompts is not ABSENT or pairs is not ABSENT
        return checked(
            (lambda text: has_more or _refuse_none(text.split()), captions),
            (_harmless, harmless),
            (lambda prefix: new_expert_path(host.output_folder(), prefix, SAVED_GUARDS), filename_prefix),
        )

    @classmethod
    def execute(
        cls,
        captions: str,
        clip: Any,
        prompts: PromptSet | None = None,
        pairs: SafetyPairs | None = None,
        **widgets: Any,
    ) -> io.NodeOutput:
        from ..training.guards import language
        from ..training.guards.train_interpreter import train_interpreter

        (config,) = from_widgets(widgets, InterpretConfig)
        output = host.output_folder()
        path = new_expert_path(output, widgets.get("filename_prefix", PREFIX), SAVED_GUARDS)
        report_progress = host.progress(cls.hidden.unique_id)
        with host.outside_inference_mode():
            trained = train_interpreter(
                _captions(captions, prompts, pairs),
                host.guard_encoder(clip),
                language(),
                config,
                harmless=_harmless(widgets.get("harmless", "")),
                cache=host.private_folder("cache"),
                on_progress=lambda stage, done, total: report_progress(done, total),
            )
        trained.guard.file().write(path)
        name = path.relative_to(output / SAVED_GUARDS).as_posix()
        report = f"saved as {SAVED_GUARDS}/{name}\n{trained.report()}"
        picture = host.image_tensor(draw_loss_curve(trained.losses))
        return io.NodeOutput(trained.guard, name, report, picture, ui=preview(report, picture))


def _captions(text: str, prompts: PromptSet | None, pairs: SafetyPairs | None) -> list[str]:
    """Return the captions of all sources; the training drops what the rule on minors forbids."""
    from ..training.system.texts import text_lines

    captions = [line.strip() for line in text_lines(text)]
    captions += [prompt.prompt for prompt in prompts.prompts] if prompts else []
    captions += (
        [side for pair in pairs.pairs for side in (pair.unsafe_prompt, pair.safe_prompt)] if pairs else []
    )
    _refuse_none([caption for caption in captions if caption])
    return captions


def _refuse_none(captions: list[str]) -> None:
    if not captions:
        raise ValueError(
            "there are no captions to train on. Write prompts, one a line, or connect Load Prompt Set or "
            "Load Safety Pairs."
        )


def _harmless(text: str) -> list[str]:
    from ..training.pairs.prompts import parse_prompts

    return list(parse_prompts(text).prompts) if text.strip() else []
