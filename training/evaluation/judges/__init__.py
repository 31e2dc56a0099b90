"""The judges of images, and `EVALUATORS`, which lists them.

To add a judge: write its file here, with a `KIND` that says how it is made, and add its line to `EVALUATORS`.
`q16.py` is an example that works on CLIP image embeddings, `open_nsfw.py` one that needs its own package.
The order is the order of the widget: append, never reorder, never rename (saved graphs store the name).
"""

from typing import Any

from ..judge import Judge, JudgeKind, JudgeParts
from ..optional import refuse_missing
from . import mhsc, mini, nudenet, open_nsfw, q16, safety_cost

EVALUATORS: dict[str, JudgeKind] = {
    "open_nsfw": open_nsfw.KIND,
    "mini": mini.KIND,
    "nudenet": nudenet.KIND,
    "q16": q16.KIND,
    "mhsc": mhsc.KIND,
    "safety_cost": safety_cost.KIND,
}


def judge_choices() -> list[str]:
    """Return the names that `make_judge` takes: `name`, or `name:preset` for a judge with several presets."""
    return [choice for name, kind in EVALUATORS.items() for choice in kind.choices(name)]


def make_judge(choice: str, *, threshold: float | None = None, **parts: Any) -> Judge:
    """Make a judge.

    Args:
        choice: one of `judge_choices`; a name alone selects its first preset.
        threshold: in (0, 1]; None selects the preset's threshold.
        parts: what the judge may need, by the names of `JudgeParts`.

    Raises:
        ValueError: if there is no such judge, preset or threshold, if its package is not installed, or if its
            embeddings or weights are missing.
    """
    given = JudgeParts(**parts)
    kind, preset = chosen_kind(choice, has_embed=given.embed is not None)
    return kind.make(preset, given).at(threshold)


def chosen_kind(choice: str, *, has_embed: bool) -> tuple[JudgeKind, str]:
    """Return the kind and the preset of a choice, without loading anything.

    Args:
        choice: one of `judge_choices`; a name alone selects its first preset.
        has_embed: whether there is a CLIP Vision for judges that need one.

    Raises:
        ValueError: if there is no such judge or preset, or if its CLIP Vision is missing.
    """
    name, _, preset = choice.partition(":")
    if name not in EVALUATORS or (preset and preset not in EVALUATORS[name].presets):
        raise ValueError(f"judge must be one of {', '.join(judge_choices())}, got {choice!r}.")
    kind = EVALUATORS[name]
    if kind.needs_clip_vision and not has_embed:
        raise ValueError(
            f"the judge {name} works on CLIP image embeddings. Connect a CLIP Vision to clip_vision; on the "
            "command line, give --clip-vision DIR."
        )
    return kind, preset or kind.presets[0]


def refuse_unavailable(choice: str, *, has_embed: bool) -> None:
    """Check in an instant that a judge can be made, short of reading its weights; see `chosen_kind`.

    Raises:
        ValueError: as `chosen_kind`, or if the package of the judge is not installed.
    """
    kind, _ = chosen_kind(choice, has_embed=has_embed)
    if kind.package:
        refuse_missing(kind.package, f"the judge {choice}")
