"""The guards of nodes: the widgets that choose one and what a blocked prompt does, and their answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from ..training.config import MAX_STRENGTH
from ..training.rules.hard_rule import refuse_minors
from . import host, inputs
from .inputs import NONE, check_strength

if TYPE_CHECKING:
    from ..training.guards import Guard, GuardVerdict

STOP, REPORT, REPLACE = MODES = ("stop", "report", "replace")
FROM_FILE = -1.0  # the threshold that stands for the one of the file: as a cosine it would block everything
STRENGTHS = {"strength_safe": 0.0, "strength_unsafe": 1.0}  # widget -> default


def guard_inputs(name: str, trainer: str, highest: float, clip: str) -> list[io.Input]:
    """Return the inputs of a node that asks a guard about a text.

    Args:
        name: id of the widget that names the file.
        trainer: display name of the node that makes such files.
        highest: the highest threshold that makes sense.
        clip: tooltip of the socket for a CLIP.
    """
    return [
        io.String.Input(
            "text",
            default="",
            multiline=True,
            tooltip="The prompt. It is read whole; of a long one the worst part decides.",
        ),
        io.Combo.Input(
            name,
            options=[NONE, *host.guard_files()],
            default=NONE,
            tooltip=f"A file in models/safety_guards or output/safety_guards, made by {trainer} for this "
            "checkpoint. none takes the one that is connected.",
        ),
        io.Float.Input(
            "threshold",
            default=FROM_FILE,
            min=FROM_FILE,
            max=highest,
            step=0.01,
            tooltip="Scores from this value on are blocked. Lower blocks more, harmless prompts too. -1 "
            "takes the guard's own, whose rate of mistakes the report states.",
        ),
        io.Combo.Input(
            "mode",
            options=list(MODES),
            default=STOP,
            tooltip="What happens to a blocked prompt. stop: nothing after this node runs. replace: the "
            "replacement goes on. report: it goes on unchanged.",
        ),
        io.Clip.Input("clip", optional=True, tooltip=clip),
        inputs.PromptGuard.Input(
            "trained", optional=True, tooltip=f"From {trainer}; used if {name} is none."
        ),
        io.String.Input(
            "replacement",
            default="",
            multiline=True,
            optional=True,
            lazy=True,
            tooltip="Only for replace: the prompt that takes the place of a blocked one. What is linked "
            "here, such as Rewrite Prompts, runs only if the prompt is blocked.",
        ),
        _strength("strength_safe", "passed"),
        _strength("strength_unsafe", "blocked"),
    ]


def guard_outputs(score: str) -> list[io.Output]:
    """Return the outputs of a node that asks a guard about a text; `score` is the tooltip of that output."""
    return [
        io.String.Output(display_name="text", tooltip="The prompt, or its replacement."),
        io.Boolean.Output(display_name="blocked", tooltip="Whether the guard blocks the prompt."),
        io.Float.Output(display_name="score", tooltip=score),
        io.Float.Output(
            display_name="strength",
            tooltip="strength_safe or strength_unsafe, for the strength of an expert.",
        ),
        io.String.Output(display_name="report", tooltip="The verdict and the guard; it repeats no prompt."),
    ]


def _strength(name: str, which: str) -> io.Float.Input:
    return io.Float.Input(
        name,
        default=STRENGTHS[name],
        min=0.0,
        max=MAX_STRENGTH,
        step=0.05,
        optional=True,
        tooltip=f"What the output strength gives for a {which} prompt; 0 leaves the model unchanged.",
    )


def guard_checks(
    file: str | None, mode: str | None, *, has_trained: bool, **widgets: Any
) -> list[tuple[Callable[[Any], Any], Any]]:
    """Return what `inputs.checked` asks of the widgets of `guard_inputs`; None comes through a link.

    Args:
        file: name of the guard's file.
        mode: one of `MODES`.
        has_trained: whether a guard is connected.
        widgets: `replacement` and those of `STRENGTHS`.
    """
    replacement = widgets["replacement"]
    return [
        (lambda name: (has_trained and name == NONE) or file_path(name), file),
        (lambda name: _check_mode(name, replacement), mode),
        (refuse_minors, replacement),
        *((lambda value, name=name: check_strength(value, name), widgets[name]) for name in STRENGTHS),
    ]


def check_lines(text: str) -> None:
    """Refuse a line that the rule on minors forbids; each stands alone, as guards look for each alone."""
    for line in text.splitlines():
        refuse_minors(line)


def file_path(name: str) -> Any:
    """Return the file of a guard.

    Raises:
        ValueError: if none is chosen.
        FileNotFoundError: if there is no such file.
    """
    if name == NONE:
        raise ValueError("no guard is chosen. Choose a file, or connect one that was trained to trained.")
    return host.guard_path(name)


def opened(name: str, threshold: float, clip: Any, trained: Guard | None) -> Guard:
    """Return the guard of a file, or the one that is connected, with the threshold of the widget."""
    from ..training.guards import open_guard, sentence_encoder

    encoders = {"clip": lambda: host.guard_encoder(clip), "sentence": sentence_encoder}
    is_connected = name == NONE and trained is not None
    guard = trained if is_connected else open_guard(file_path(name), encoders)
    return guard.at(None if threshold == FROM_FILE else threshold)


def lazy_replacement(guard: Callable[[], Guard], text: str, mode: str, replacement: str | None) -> list[str]:
    """Ask for a linked replacement, which is None until it is made, only if it will be used."""
    from ..training.guards.verdict import RULE

    if mode != REPLACE or replacement is not None:
        return []
    verdict = guard().look(text)
    return ["replacement"] if verdict.blocked and verdict.reason != RULE else []


def answer(node: str, guard: Guard, text: str, mode: str, widgets: Mapping[str, Any]) -> io.NodeOutput:
    """Ask a guard about a text, and return what `guard_outputs` declares.

    Args:
        node: display name of the node, for the log.
        guard: the guard.
        text: the prompt.
        mode: one of `MODES`.
        widgets: `replacement` and those of `STRENGTHS`; one that is missing has its default.

    Raises:
        ValueError: if a strength is out of range, or the replacement is blank or forbidden.
    """
    from ..training.guards import ADVICE

    strengths = [widgets.get(name, default) for name, default in STRENGTHS.items()]
    for name, strength in zip(STRENGTHS, strengths, strict=True):
        check_strength(strength, name)
    verdict = guard.look(text)
    out = _text_out(node, text, verdict, mode, widgets.get("replacement", ""))
    report = "\n".join([verdict.report(), guard.describe(), ADVICE])
    shown = ui.PreviewText(report)
    return io.NodeOutput(out, verdict.blocked, verdict.score, verdict.strength(*strengths), report, ui=shown)


def _check_mode(mode: str, replacement: str | None) -> None:
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.")
    if mode == REPLACE and replacement is not None and not replacement.strip():
        raise ValueError("mode replace needs a replacement. Write a prompt, or choose stop.")


def _text_out(node: str, text: str, verdict: GuardVerdict, mode: str, replacement: str) -> Any:
    """Return what goes on: nothing for the rule on minors, in every mode."""
    from ..training.guards.verdict import RULE

    if not verdict.blocked or (mode == REPORT and verdict.reason != RULE):
        return text
    if mode == REPLACE and verdict.reason != RULE:
        refuse_minors(replacement)
        _check_mode(mode, replacement)
        return replacement
    return host.Blocked(f"{node} {verdict.report()}")
