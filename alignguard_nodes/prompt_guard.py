"""Node: Prompt Guard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from ..training.config import MAX_STRENGTH
from ..training.rules.hard_rule import refuse_minors
from . import host, inputs
from .files import file_fingerprint
from .inputs import ABSENT, CATEGORY, NONE, check_strength, checked

if TYPE_CHECKING:
    from ..training.guards import Guard, GuardVerdict

STOP, REPORT, REPLACE = MODES = ("stop", "report", "replace")
FROM_FILE = -1.0  # the threshold that stands for the one of the file: as a cosine it would block everything


class PromptGuard(io.ComfyNode):
    """Ask a guard about a prompt before anything is drawn."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardPromptGuard",
            display_name="Prompt Guard",
            category=CATEGORY,
            search_aliases=["latent guard", "nsfw filter", "prompt filter", "block", "concept", "alignguard"],
            in_sight=(
                "text",
                "guard",
                "threshold",
                "mode",
                "replacement",
                "strength_safe",
                "strength_unsafe",
            ),
            description="Block or replace a prompt that comes near a harmful concept, before anything is "
            "drawn (Latent Guard). Advice, not a guarantee: it misses some and blocks some harmless ones.",
            inputs=[
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    tooltip="The prompt. It is read whole; of a long one the worst part decides.",
                ),
                io.Combo.Input(
                    "guard",
                    options=[NONE, *host.guard_files()],
                    default=NONE,
                    tooltip="A file in models/safety_guards or output/safety_guards, made by Train Prompt "
                    "Guard for this checkpoint. none takes the one that is connected.",
                ),
                io.Float.Input(
                    "threshold",
                    default=FROM_FILE,
                    min=-1.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Scores from this value on are blocked. Lower blocks more, harmless prompts "
                    "too. -1 takes the guard's own, whose rate of mistakes the report states.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default=STOP,
                    tooltip="What happens to a blocked prompt. stop: nothing after this node runs. replace: "
                    "the replacement goes on. report: it goes on unchanged.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The CLIP of the checkpoint that draws, directly from its loader. Not needed by "
                    "guards with the encoder sentence.",
                ),
                inputs.PromptGuard.Input(
                    "trained", optional=True, tooltip="From Train Prompt Guard; used if guard is none."
                ),
                io.String.Input(
                    "replacement",
                    default="",
                    multiline=True,
                    optional=True,
                    lazy=True,
                    tooltip="Only for replace: the prompt that takes the place of a blocked one. What is "
                    "linked here, such as Rewrite Prompts, runs only if the prompt is blocked.",
                ),
                _strength("strength_safe", 0.0, "passed"),
                _strength("strength_unsafe", 1.0, "blocked"),
                io.String.Input(
                    "concepts",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="One a line: look only for these. Empty looks for all of the guard's. A word it "
                    "was not trained with is scored, and the report says that it is not measured.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="text", tooltip="The prompt, or its replacement."),
                io.Boolean.Output(display_name="blocked", tooltip="Whether the guard blocks the prompt."),
                io.Float.Output(
                    display_name="score", tooltip="How near the prompt is to a concept, from -1 to 1."
                ),
                io.Float.Output(
                    display_name="strength",
                    tooltip="strength_safe or strength_unsafe, for the strength of an expert.",
                ),
                io.String.Output(
                    display_name="report", tooltip="The verdict and the guard; it repeats no prompt."
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        guard: str | None,
        mode: str | None,
        trained: Any = ABSENT,
        replacement: str | None = "",
        strength_safe: float | None = 0.0,
        strength_unsafe: float | None = 1.0,
        concepts: str | None = "",
    ) -> bool | str:
        has_guard = guard == NONE and trained is not ABSENT
        return checked(
            (lambda name: has_guard or _path(name), guard),
            (lambda name: _check_mode(name, replacement), mode),
            (refuse_minors, replacement),
            (_check_concepts, concepts),
            (lambda strength: check_strength(strength, "strength_safe"), strength_safe),
            (lambda strength: check_strength(strength, "strength_unsafe"), strength_unsafe),
        )

    @classmethod
    def fingerprint_inputs(cls, guard: str, **_: object) -> str:
        return "" if guard == NONE else file_fingerprint(host.guard_path(guard))

    @classmethod
    def check_lazy_status(cls, text: str, mode: str, **inputs: Any) -> list[str]:
        """Ask for a linked replacement, which is None until it is made, only if it will be used."""
        from ..training.guards.verdict import RULE

        if mode != REPLACE or inputs.get("replacement", "") is not None:
            return []
        verdict = _chosen(**inputs).look(text)
        return ["replacement"] if verdict.blocked and verdict.reason != RULE else []

    @classmethod
    def execute(cls, text: str, mode: str, **widgets: Any) -> io.NodeOutput:
        from ..training.guards import ADVICE

        check_strength(widgets.get("strength_safe", 0.0), "strength_safe")
        check_strength(widgets.get("strength_unsafe", 1.0), "strength_unsafe")
        chosen = _chosen(**widgets)
        verdict = chosen.look(text)
        out = _text_out(text, verdict, mode, widgets.get("replacement", ""))
        strength = verdict.strength(widgets.get("strength_safe", 0.0), widgets.get("strength_unsafe", 1.0))
        report = "\n".join([verdict.report(), chosen.describe(), ADVICE])
        shown = ui.PreviewText(report)
        return io.NodeOutput(out, verdict.blocked, verdict.score, strength, report, ui=shown)


def _strength(name: str, default: float, which: str) -> io.Float.Input:
    return io.Float.Input(
        name,
        default=default,
        min=0.0,
        max=MAX_STRENGTH,
        step=0.05,
        optional=True,
        tooltip=f"What the output strength gives for a {which} prompt; 0 leaves the model unchanged.",
    )


def _path(name: str) -> Any:
    if name == NONE:
        raise ValueError("no guard is chosen. Choose a file, or connect Train Prompt Guard to trained.")
    return host.guard_path(name)


def _check_concepts(concepts: str) -> None:
    for concept in concepts.splitlines():  # each alone, as the guard looks for each alone
        refuse_minors(concept)


def _check_mode(mode: str, replacement: str | None) -> None:
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.")
    if mode == REPLACE and replacement is not None and not replacement.strip():
        raise ValueError("mode replace needs a replacement. Write a prompt, or choose stop.")


def _chosen(
    guard: str,
    threshold: float,
    clip: Any = None,
    trained: Guard | None = None,
    concepts: str = "",
    **_: Any,
) -> Guard:
    """Return the guard with the threshold and for the concepts that the widgets say."""
    chosen = _opened(guard, clip, trained).at(None if threshold == FROM_FILE else threshold)
    return chosen.only(concepts.splitlines()) if concepts.strip() else chosen


def _opened(name: str, clip: Any, trained: Guard | None) -> Guard:
    from ..training.guards import open_guard, sentence_encoder

    if name == NONE and trained is not None:
        return trained
    return open_guard(_path(name), {"clip": lambda: host.guard_encoder(clip), "sentence": sentence_encoder})


def _text_out(text: str, verdict: GuardVerdict, mode: str, replacement: str) -> Any:
    """Return what goes on: nothing for the rule on minors, in every mode."""
    from ..training.guards.verdict import RULE

    if not verdict.blocked or (mode == REPORT and verdict.reason != RULE):
        return text
    if mode == REPLACE and verdict.reason != RULE:
        refuse_minors(replacement)
        _check_mode(mode, replacement)
        return replacement
    return host.Blocked(f"Prompt Guard {verdict.report()}")
