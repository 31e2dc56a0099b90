"""What people are shown of judged images: a report in words, and the images with the unsafe ones blurred."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..rules.categories import CATEGORIES
from .judge import Verdict
from .panel import Panel
from .scopes import FRAMES, Finding

NAMED = 10  # images that the report names by number; the counts are always complete
BLUR, BLACK, STOP = ACTIONS = ("blur", "black", "stop")  # what a gate does with unsafe pictures
CELLS = 6  # along the shorter side: colours remain, shapes do not (our choice)
LEAST = 4  # pixels of a cell; in small images fewer would not hide anything


def describe(
    panel: Panel, verdict: Verdict, wanted: Sequence[str] = (), findings: Sequence[Finding] = ()
) -> str:
    """Return the report of a verdict.

    Args:
        panel: the judges.
        verdict: on n images.
        wanted: the categories asked for; empty for all.
        findings: what scopes beyond single pictures found; those of single pictures are left out.
    """
    asked = tuple(wanted) or tuple(dict.fromkeys((*CATEGORIES, *verdict.categories)))
    lines = [_summary(verdict, asked), f"judged by {panel.label()}"]
    found = [line for one in findings if (line := _finding(one, asked))]
    more = [f"- and {len(found) - NAMED} more"] if len(found) > NAMED else []
    return "\n".join([*lines, *(_line(verdict, name) for name in asked), *found[:NAMED], *more])


def _summary(verdict: Verdict, asked: tuple[str, ...]) -> str:
    flags = verdict.flagged(asked)
    if flags is None:
        return f"not measured: no judge sees {', '.join(asked)}"
    numbers = [str(at + 1) for at, flag in enumerate(flags.tolist()) if flag]
    named = f": number {', '.join(numbers[:NAMED])}" if numbers else ""
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    return f"{len(numbers)} of {len(flags)} pictures unsafe{named}{more}"


def _line(verdict: Verdict, category: str) -> str:
    scores, flags = verdict.score(category), verdict.flagged(category)
    if scores is None:
        return f"- {category}: not measured"
    if not len(scores):
        return f"- {category}: no pictures"
    return f"- {category}: {int(flags.sum())} unsafe, highest score {scores.max():.3f}"


def _finding(finding: Finding, asked: tuple[str, ...]) -> str:
    names = [name for name in finding.categories if name in asked]
    if not names or finding.scope == FRAMES:
        return ""
    where = f"{finding.first}" if finding.first == finding.last else f"{finding.first} to {finding.last}"
    return f"- {finding.scope}: picture {where}, {', '.join(names)}"


def let_through(images: Tensor, unsafe: Tensor, action: str) -> Tensor | None:
    """Return images as a gate lets them through.

    Args:
        images: (n, 3, h, w) fp32 in [0, 1].
        unsafe: (n,) bool.
        action: one of `ACTIONS`, for the unsafe ones.

    Returns:
        (n, 3, h, w), the safe ones unchanged; None if nothing may pass.

    Raises:
        ValueError: if there is no such action.
    """
    if action not in ACTIONS:
        raise ValueError(f"action must be one of {', '.join(ACTIONS)}, got {action!r}.")
    if action == BLUR:
        return blurred(images, unsafe)
    if action == BLACK:
        return torch.where(unsafe[:, None, None, None], torch.zeros_like(images), images)
    return None if bool(unsafe.any()) else images


def hidden_pictures(images: Tensor, flags: Tensor | None) -> Tensor:
    """Return images with the flagged ones blurred; all of them if `flags` is None (not measured)."""
    return blurred(images, torch.ones(len(images), dtype=torch.bool) if flags is None else flags)


def blurred(images: Tensor, hidden: Tensor) -> Tensor:
    """Return images with the hidden ones blurred beyond recognition, the others unchanged.

    Args:
        images: (n, 3, h, w) fp32 in [0, 1].
        hidden: which images to blur, (n,) bool.
    """
    h, w = images.shape[-2:]
    cell = max(LEAST, min(h, w) // CELLS)
    coarse = F.interpolate(images, (max(1, h // cell), max(1, w // cell)), mode="area")
    smooth = F.interpolate(coarse, (h, w), mode="bilinear")
    return torch.where(hidden.to(images.device)[:, None, None, None], smooth, images)
