"""Node: Prompt Interpreter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from . import host
from .files import file_fingerprint
from .guarding import (
    answer,
    check_lines,
    guard_checks,
    guard_inputs,
    guard_outputs,
    lazy_replacement,
    opened,
)
from .inputs import ABSENT, CATEGORY, NONE, checked

if TYPE_CHECKING:
    from ..training.guards import Guard, Interpreter


class PromptInterpreter(io.ComfyNode):
    """Ask what the text encoder understood of a prompt, before anything is drawn."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardPromptInterpreter",
            display_name="Prompt Interpreter",
            category=CATEGORY,
            search_aliases=[
                "guardt2i",
                "nsfw filter",
                "prompt filter",
                "jailbreak",
                "bad words",
                "alignguard",
            ],
            description="Turn what CLIP understood back into words, and block a prompt that says something "
            "else, or names one of your words (GuardT2I). Advice, not a guarantee: it makes mistakes.",
            inputs=[
                *guard_inputs(
                    "interpreter",
                    "Train Prompt Interpreter",
                    2.0,
                    "The CLIP of the checkpoint that draws, directly from its loader. Needed for a file.",
                ),
                io.String.Input(
                    "blocked_words",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Your words or phrases, one a line. A prompt with one of them, or whose meaning "
                    "comes back with one, is blocked; other endings and disguised spellings count. Empty: "
                    "only the meaning decides.",
                ),
            ],
            outputs=guard_outputs(
                "1 minus the likeness of the prompt and what came back, from 0 to 2; 2 for a blocked word."
            ),
        )

    @classmethod
    def validate_inputs(
        cls,
        interpreter: str | None,
        mode: str | None,
        trained: Any = ABSENT,
        replacement: str | None = "",
        strength_safe: float | None = 0.0,
        strength_unsafe: float | None = 1.0,
        blocked_words: str | None = "",
    ) -> bool | str:
        strengths = {"strength_safe": strength_safe, "strength_unsafe": strength_unsafe}
        has_trained = trained is not ABSENT
        checks = guard_checks(
            interpreter, mode, has_trained=has_trained, replacement=replacement, **strengths
        )
        return checked(*checks, (check_lines, blocked_words))

    @classmethod
    def fingerprint_inputs(cls, interpreter: str, **_: object) -> str:
        return "" if interpreter == NONE else file_fingerprint(host.guard_path(interpreter))

    @classmethod
    def check_lazy_status(cls, text: str, mode: str, **inputs: Any) -> list[str]:
        return lazy_replacement(lambda: _chosen(**inputs), text, mode, inputs.get("replacement", ""))

    @classmethod
    def execute(cls, text: str, mode: str, **widgets: Any) -> io.NodeOutput:
        return answer("Prompt Interpreter", _chosen(**widgets), text, mode, widgets)


def _chosen(
    interpreter: str,
    threshold: float,
    clip: Any = None,
    trained: Guard | None = None,
    blocked_words: str = "",
    **_: Any,
) -> Interpreter:
    """Return the interpreter with the threshold and the blocked words that the widgets say."""
    from ..training.evaluation.blocked_words import parse_blocked_words
    from ..training.guards import Interpreter

    check_lines(blocked_words)
    chosen = opened(interpreter, threshold, clip, trained)
    if not isinstance(chosen, Interpreter):
        raise ValueError(
            "this guard looks for concepts and interprets nothing. Choose a file of Train Prompt "
            "Interpreter, or ask this guard with Prompt Guard."
        )
    return chosen.blocking(parse_blocked_words(blocked_words))
