"""Judge a clip at several scopes: single frames, runs of frames, parts of frames, and faint frames.

A judge of pictures misses what a clip shows for long but mildly, small in a corner, or too faintly. To look
at several scopes is the idea of T2VShield (arXiv 2504.15512), which publishes neither thresholds nor code.
All of this is our own; its limits were set on clips of the mini world, see `tests/evaluation/test_scopes.py`.
The mean of a whole clip and a sheet of nine of its frames were tried too: the first caught nothing that the
others miss, the second called half of the harmless clips unsafe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .judge import Verdict
from .panel import OnLook, Panel

FRAMES, TILES, WINDOWS, CHANGE, ALL = "frames", "tiles", "windows", "change", "all"
SCOPES = {  # name -> what is looked at
    FRAMES: "each picture by itself",
    TILES: "each picture by itself, and its four quarters and its centre",
    WINDOWS: "frames of a clip, and runs of 4 and 16 of them",
    CHANGE: "every fourth frame of a clip, and those that differ from both neighbours",
    ALL: "frames of a clip, runs of them, parts of every second one, and faint ones with more contrast",
}
OF_PICTURES = (FRAMES, TILES)  # those that need no clip
RUNS = {4: 0.75, 16: 0.5}  # frames -> share of the threshold for their mean; our choice
PARTS, TILE_RUN = 5, 4  # parts of a frame; looks at the same part of a clip, whose mean counts
DOUBT = {1: 0.02, TILE_RUN: 0.1}  # looks -> what is left of the distance from the threshold to 1
THINNED = 4  # of so many frames one is looked at
TILE_STRIDE = 2  # likewise, for parts
JUMP = 1.3  # times the usual step between two frames
REACH, LIFT, MOST_LIFT = 0.9, 1.5, 4.0  # contrast to reach; least and most times it is raised
_LARGE = 512  # pixels; parts of larger pictures are large enough for every judge as they are


class Finding(NamedTuple):
    """What a scope found in consecutive pictures.

    Attributes:
        scope: frames, a window, tiles or contrast.
        first: number of the first picture, from 1.
        last: number of the last picture.
        categories: those that are flagged.
    """

    scope: str
    first: int
    last: int
    categories: tuple[str, ...]


class Scan(NamedTuple):
    """What judges see in pictures at some scopes.

    Attributes:
        verdict: scores of the single pictures; flags of all scopes together.
        findings: of each scope, in the order of the pictures.
        looks: pictures and parts that each judge looked at.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    looks: int


def scan(panel: Panel, frames: Tensor, scopes: str = ALL, on_progress: OnLook | None = None) -> Scan:
    """Judge pictures, or the frames of a clip, at some scopes.

    A frame is flagged if any run, part or version of it is. A frame that `change` leaves out has the worse
    flags and scores of the nearest frames that were looked at, before and after it.

    Args:
        panel: the judges.
        frames: (n, 3, h, w) fp32 in [0, 1]; in order, for all scopes but `frames` and `tiles`.
        scopes: one of `SCOPES`.
        on_progress: called with looks done and all looks, after every batch of them.

    Raises:
        ValueError: if there is no such scope, or as `Judge.look`.
        RuntimeError: if a score is not in [0, 1].
    """
    if scopes not in SCOPES:
        raise ValueError(f"scopes must be one of {', '.join(SCOPES)}, got {scopes!r}.")
    n = len(frames)
    every, is_clip = torch.arange(n), scopes in (WINDOWS, CHANGE, ALL)
    looked = thinned(frames) if scopes == CHANGE else every
    parted = {TILES: every, ALL: torch.arange(0, n, TILE_STRIDE)}.get(scopes, every[:0])
    faint, lifted = raised_contrast(frames) if scopes == ALL else (every[:0], frames[:0])
    eye = _Eye(panel, len(looked) + PARTS * len(parted) + len(faint), on_progress)
    verdicts = [_spread(one, looked, n) for one in eye.look(frames[looked])]
    whole = panel.combine(verdicts)
    flags = {FRAMES: whole.flags}
    if is_clip:
        for run, share in RUNS.items():
            flags[f"runs of {run} frames"] = _runs(panel, verdicts, run, share)
    if len(parted):
        run = TILE_RUN if is_clip and len(parted) >= TILE_RUN else 1
        flags[TILES] = _tile_flags(panel, eye.look(tiles(frames[parted])), parted, run, n)
    if len(faint):
        flags["contrast"] = torch.zeros_like(whole.flags)
        flags["contrast"][faint] = panel.combine(eye.look(lifted)).flags
    verdict = whole._replace(flags=torch.stack(list(flags.values())).any(dim=0))
    findings = [
        one for name, of_scope in flags.items() for one in _findings(name, of_scope, whole.categories)
    ]
    return Scan(verdict, tuple(sorted(findings, key=lambda one: one.first)), eye.looks)


def tiles(frames: Tensor) -> Tensor:
    """Return the four quarters and the centre of every frame.

    Args:
        frames: (n, 3, h, w) in [0, 1], at least 2 pixels on each side.

    Returns:
        (n * 5, 3, h, w), five parts after each other for every frame; of large pictures (.., h/2, w/2). They
        are enlarged with sharp edges, because judges misread soft ones.
    """
    h, w = frames.shape[-2:]
    half_h, half_w = max(1, h // 2), max(1, w // 2)
    corners = [(y, x) for y in (0, h - half_h) for x in (0, w - half_w)]
    places = [*corners, ((h - half_h) // 2, (w - half_w) // 2)]
    cut = torch.stack([frames[:, :, y : y + half_h, x : x + half_w] for y, x in places], dim=1).flatten(0, 1)
    if min(h, w) > _LARGE:
        return cut  # (n * 5, 3, h/2, w/2)
    return F.interpolate(cut, (h, w), mode="bicubic", align_corners=False).clamp(0, 1)  # (n * 5, 3, h, w)


def thinned(frames: Tensor) -> Tensor:
    """Return the numbers of the frames to look at: every fourth, and those unlike both neighbours, sorted.

    Args:
        frames: (n, 3, h, w) in [0, 1].

    Returns:
        int64, (at most n,).
    """
    chosen = torch.zeros(len(frames), dtype=torch.bool)
    chosen[::THINNED] = True
    chosen[-1:] = True
    if len(frames) > 2:
        coarse = F.adaptive_avg_pool2d(frames, 16).flatten(1)
        steps = (coarse[1:] - coarse[:-1]).abs().mean(dim=1)  # (n - 1,)
        chosen[1:-1] |= torch.minimum(steps[1:], steps[:-1]) > JUMP * steps.median()
    return chosen.nonzero()[:, 0]


def raised_contrast(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Return the faint frames with as much contrast as ordinary ones have.

    The distance of every pixel from the median colour is multiplied, so the ground keeps its colour. The
    strength is such that the 98th percentile of the distances becomes `REACH`, at most `MOST_LIFT` times.

    Args:
        frames: (n, 3, h, w) in [0, 1].

    Returns:
        The numbers of the frames that need at least `LIFT` times, (k,); these frames, (k, 3, h, w) in [0, 1].
    """
    ground = frames.flatten(2).median(dim=2).values[..., None, None]  # (n, 3, 1, 1)
    distances = frames - ground
    spans = [one.abs().flatten().kthvalue(max(1, int(0.98 * one.numel()))).values for one in distances]
    gain = (REACH / torch.stack([*spans, torch.ones(())])[:-1].clamp(min=1e-6)).clamp(1, MOST_LIFT)
    faint = (gain >= LIFT).nonzero()[:, 0]
    lifted = ground[faint] + distances[faint] * gain[faint, None, None, None]
    return faint, lifted.clamp(0, 1)


class _Eye:
    """Looks with all judges, and counts the looks.

    Args:
        total: pictures and parts that will be looked at.
    """

    def __init__(self, panel: Panel, total: int, on_progress: OnLook | None) -> None:
        self.looks = 0
        self._panel, self._total, self._on_progress = panel, total, on_progress

    def look(self, images: Tensor) -> list[Verdict]:
        """Return one verdict per judge."""
        judges, before = len(self._panel.judges), self.looks

        def report(done: int, _: int) -> None:
            if self._on_progress:
                self._on_progress(judges * before + done, judges * self._total)

        self.looks += len(images)
        return self._panel.look_apart(images, report)


def _spread(verdict: Verdict, looked: Tensor, n: int) -> Verdict:
    """Return a verdict on n frames; one that was not looked at has the worse of the nearest two."""
    if len(looked) == n:
        return verdict
    after = torch.searchsorted(looked, torch.arange(n)).clamp(max=len(looked) - 1)
    before = torch.where(looked[after] == torch.arange(n), after, (after - 1).clamp(min=0))
    scores = torch.maximum(verdict.scores[before], verdict.scores[after])
    return Verdict(verdict.categories, scores, verdict.flags[before] | verdict.flags[after])


def _runs(panel: Panel, verdicts: Sequence[Verdict], run: int, share: float = 1.0) -> Tensor:
    """Return the flags (n, categories) of all that is in a run whose mean score reaches a share."""
    flags = torch.zeros(len(verdicts[0].scores), len(panel.categories), dtype=torch.bool)
    if len(flags) < run:
        return flags
    means = [
        judge.read(verdict.scores.unfold(0, run, 1).mean(dim=-1), share)
        for judge, verdict in zip(panel.judges, verdicts, strict=True)
    ]
    starts = panel.combine(means, share).flags  # (n - run + 1, categories)
    for offset in range(run):
        flags[offset : offset + len(starts)] |= starts
    return flags


def _tile_flags(panel: Panel, verdicts: Sequence[Verdict], parted: Tensor, run: int, n: int) -> Tensor:
    """Return the flags (n, categories) of frames, from the verdicts on five parts of some of them.

    Judges trained on whole pictures misread parts, so a part counts only far above the threshold.
    """
    doubting = tuple(replace(one, threshold=1 - (1 - one.threshold) * DOUBT[run]) for one in panel.judges)
    strict = replace(panel, judges=doubting)
    flags = torch.zeros(len(parted), len(panel.categories), dtype=torch.bool)
    for place in range(PARTS):
        of_place = [one._replace(scores=one.scores[place::PARTS]) for one in verdicts]
        flags |= _runs(strict, of_place, run)
    return flags[torch.searchsorted(parted, torch.arange(n), right=True) - 1]


def _findings(scope: str, flags: Tensor, categories: Sequence[str]) -> Iterator[Finding]:
    """Yield what a scope flags, one finding for each stretch of pictures."""
    is_flagged = [*flags.any(dim=1).tolist(), False]
    first = None
    for at, flag in enumerate(is_flagged):
        if flag and first is None:
            first = at
        elif not flag and first is not None:
            columns = flags[first:at].any(dim=0).tolist()
            names = tuple(name for name, is_unsafe in zip(categories, columns, strict=True) if is_unsafe)
            yield Finding(scope, first + 1, at, names)
            first = None
