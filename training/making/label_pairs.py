"""Label pairs with a vision-language model that the person runs: which pairs are right, reversed, or neither.

Each pair is looked at in both orders, see `pair_looks`, and again if they differ; a model that blames a
place instead of a picture contradicts itself then. Blank pictures are mixed in, unmarked: a model that calls
them unsafe labels nothing. The protocol is MIS's (arXiv 2501.18533), which publishes no precision of its
labels; the swap, the controls, the limits and the quarantine are our own.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..config import LabelConfig
from ..evaluation.statistics import cohens_kappa
from ..pairs.report import HARD_RULE, reason_lines
from ..rules.hard_rule import joins_minor_and_sexual
from ..system.pictures import image_tensor, read_rgb
from ..system.work_folder import RowLog, claim, logged_rows
from .local_endpoint import Endpoint, EndpointError, MalformedError
from .pair_looks import Look, look_at

if TYPE_CHECKING:
    from ..evaluation import Panel
    from ..pairs import SafetyPairs
    from ..pairs.pair import PreferencePair

KEPT, RELABELLED = "kept", "relabelled"
BOTH_SAFE = "both pictures are called safe"
BOTH_UNSAFE = "both pictures are called unsafe"
OTHER_SCENE = "the pictures show different scenes"
CONTRADICTION = "the answers contradict each other"
REVERSED = "the winner is called unsafe and the loser safe"
MALFORMED = "an answer is not in the form that was asked for"
NO_ANSWER = "the endpoint gave no answer"
MOST_FALSE_ALARMS = 0.1  # of the pictures of the controls
LEAST_SEEN = 0.8  # of the pairs with an answer: at least one picture is called unsafe
MOST_FAILURES = 3  # in a row; after them the endpoint is not asked again
LABELS = "labelling.json"
_CONTROL = "control "
_GREYS = ((255, 255), (0, 0), (128, 128))  # white, black, grey


@dataclass
class LabelReport:
    """What became of the pairs.

    Attributes:
        outcomes: `KEPT`, `RELABELLED` or a reason for quarantine -> ids of the pairs.
        per_category: category -> outcome -> number of pairs.
        controls: number of blank pictures that were looked at, and of those called unsafe.
        seen: number of pairs with an answer, and of those in which a picture is called unsafe.
        kappa: Cohen's kappa of the model and the second judge over the pictures of pairs with an answer;
            None: not measured.
        asked: number of pairs and controls asked about in this run; the others had an answer.
    """

    outcomes: dict[str, list[str]] = field(default_factory=dict)
    per_category: dict[str, Counter] = field(default_factory=dict)
    controls: tuple[int, int] = (0, 0)
    seen: tuple[int, int] = (0, 0)
    kappa: float | None = None
    asked: int = 0

    def count(self, outcome: str) -> int:
        """Return the number of pairs of an outcome."""
        return len(self.outcomes.get(outcome, ()))

    @property
    def quarantined(self) -> dict[str, list[str]]:
        """Reason -> ids of the pairs that are not used."""
        return {name: ids for name, ids in self.outcomes.items() if name not in (KEPT, RELABELLED)}

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "kept": self.count(KEPT),
            "relabelled": self.outcomes.get(RELABELLED, []),
            "quarantined": self.quarantined,
            "per_category": {name: dict(counts) for name, counts in self.per_category.items()},
            "controls": {"pictures": self.controls[0], "called_unsafe": self.controls[1]},
            "seen": {"pairs": self.seen[0], "with_a_danger": self.seen[1]},
            "kappa": self.kappa,
        }

    def text(self) -> str:
        """Return the report for people; it repeats no prompt and no description."""
        kappa = "not measured" if self.kappa is None else f"{self.kappa:.2f}"
        quarantined = sum(map(len, self.quarantined.values()))
        return "\n".join(
            [
                f"{self.count(KEPT)} pairs kept, {self.count(RELABELLED)} relabelled, {quarantined} in "
                "quarantine.",
                f"- {self.controls[1]} of {self.controls[0]} blank pictures called unsafe",
                f"- a danger seen in {self.seen[1]} of {self.seen[0]} pairs with an answer",
                f"- agreement with the second judge (Cohen's kappa): {kappa}",
                *reason_lines(self.quarantined),
                *(
                    f"- {name}: {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}"
                    for name, counts in self.per_category.items()
                ),
            ]
        )


def label_pairs(
    pairs: SafetyPairs,
    endpoint: Endpoint,
    folder: Path,
    config: LabelConfig,
    *,
    panel: Panel | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[SafetyPairs, LabelReport]:
    """Label pairs; a run that was stopped continues where it was, and ends the same.

    Args:
        pairs: checked pairs. Reversed ones get their pictures exchanged, or go into quarantine.
        endpoint: of a vision-language model.
        folder: keeps each answer as soon as it is there, descriptions included; made if needed.
        config: limits.
        panel: a second judge, for the agreement; None: it is not measured.
        on_progress: called with (done, total); an exception it raises stops the run.

    Returns:
        The pairs that are kept or relabelled, and the report.

    Raises:
        ValueError: if the folder holds other labels, if the model calls blank pictures unsafe, if it sees no
            danger in too many pairs, or if no pair is left.
        EndpointError: if the endpoint does not answer; finished rows are kept.
    """
    settings = {
        "pairs": pairs.content_hash,
        "ids": hashlib.sha256("\n".join(pair.id for pair in pairs.pairs).encode()).hexdigest(),
        "model": endpoint.model,
        "controls": config.controls,
        "seed": config.seed,
    }
    claim(folder, settings, file=LABELS, holds="labels")
    rows, asked = _answered(_tasks(pairs, config), endpoint, folder, config, on_progress)
    report = LabelReport(asked=asked)
    _check_controls(report, [row for name, row in rows.items() if name.startswith(_CONTROL)])
    labelled = _sorted_out(pairs, rows, config, report)
    _check_seen(report)
    report.kappa = _kappa(pairs, rows, panel) if panel else None
    if not labelled:
        raise ValueError(f"no pair is left. {report.text()}")
    return replace(pairs, pairs=tuple(labelled)), report


def _answered(
    tasks: Sequence[tuple[str, PreferencePair | None]],
    endpoint: Endpoint,
    folder: Path,
    config: LabelConfig,
    on_progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, dict[str, Any]], int]:
    """Return the row of every task by its name, and how many were asked now; others were in the folder.

    A task that gets no answer has no row: it is asked again by the next run.
    """
    rows = {row["id"]: row for row in logged_rows(folder)}
    asked, failures = 0, 0
    with RowLog(folder, 0) as log:
        for number, (name, pair) in enumerate(tasks):
            if on_progress:
                on_progress(number, len(tasks))
            if name in rows:
                continue
            try:
                rows[name] = _row(name, pair, endpoint, config)
            except EndpointError:
                failures += 1
                if failures >= MOST_FAILURES or not rows:
                    raise
                continue
            log.add(rows[name])
            asked, failures = asked + 1, 0
    if on_progress:
        on_progress(len(tasks), len(tasks))
    return rows, asked


def _tasks(pairs: SafetyPairs, config: LabelConfig) -> list[tuple[str, PreferencePair | None]]:
    """Return what is asked, with the controls spread evenly among the pairs; a control has no pair."""
    tasks: list[tuple[str, PreferencePair | None]] = [(f"pair {pair.id}", pair) for pair in pairs.pairs]
    gap = max(1, len(tasks) // max(config.controls, 1))
    for number in range(config.controls):
        tasks.insert(min(number * (gap + 1), len(tasks)), (f"{_CONTROL}{number}", None))
    return tasks


def _row(name: str, pair: PreferencePair | None, endpoint: Endpoint, config: LabelConfig) -> dict[str, Any]:
    """Ask about a pair or a control in both orders, the first by a seeded coin; again if they differ."""
    coin = hashlib.sha256(f"{config.seed} {name}".encode()).digest()[0] % 2 == 1
    if pair is None:
        number = int(name.removeprefix(_CONTROL))
        pictures = [Image.new("RGB", (64, 64), (grey,) * 3) for grey in _GREYS[number % len(_GREYS)]]
    elif joins_minor_and_sexual(pair.categories, pair.unsafe_prompt, pair.safe_prompt):
        return {"id": name, "reason": HARD_RULE}
    else:
        pictures = [read_rgb(pair.winner), read_rgb(pair.loser)]
    try:
        looks = [look_at(endpoint, *pictures, swapped=swapped) for swapped in (coin, not coin)]
        if pair and looks[0].unsafe != looks[1].unsafe:
            looks += [look_at(endpoint, *pictures, swapped=swapped) for swapped in (coin, not coin)]
    except MalformedError:
        return {"id": name, "reason": MALFORMED}
    said = [text for look in looks for text in (*look.described, *look.harms[0], *look.harms[1])]
    if joins_minor_and_sexual(pair.categories if pair else (), *said):
        return {"id": name, "reason": HARD_RULE}  # without what was said
    return {"id": name, "looks": [look._asdict() for look in looks]}


def _sorted_out(
    pairs: SafetyPairs, rows: Mapping[str, Mapping[str, Any]], config: LabelConfig, report: LabelReport
) -> list[PreferencePair]:
    """Return the pairs to use, and count every outcome."""
    used = []
    for pair in pairs.pairs:
        row = rows.get(f"pair {pair.id}", {"reason": NO_ANSWER})
        outcome = row.get("reason") or _outcome([Look(**look) for look in row["looks"]], config)
        report.outcomes.setdefault(outcome, []).append(pair.id)
        for name in pair.categories:
            report.per_category.setdefault(name, Counter())[outcome] += 1
        if "looks" in row:
            is_danger = any(any(look["unsafe"]) for look in row["looks"])
            report.seen = (report.seen[0] + 1, report.seen[1] + is_danger)
        if outcome == KEPT:
            used.append(pair)
        elif outcome == RELABELLED:
            swapped = {"winner": pair.loser, "loser": pair.winner}
            used.append(replace(pair, **swapped, safety_gap=None, judged_right=None))
    return used


def _outcome(looks: Sequence[Look], config: LabelConfig) -> str:
    """Return what looks at winner and loser, half of them in each order, say of a pair.

    Two looks must agree, and three of four: a model that errs in one look of four is still heard, and one
    that blames a place instead of a picture is not.
    """
    votes = [sum(look.unsafe[at] for look in looks) / len(looks) for at in (0, 1)]  # winner, loser
    if any(0.25 < vote < 0.75 for vote in votes):
        return CONTRADICTION
    if sum(look.same_scene for look in looks) / len(looks) < config.same_scene_min:
        return OTHER_SCENE
    winner_unsafe, loser_unsafe = (vote > 0.5 for vote in votes)
    if winner_unsafe == loser_unsafe:
        return BOTH_UNSAFE if winner_unsafe else BOTH_SAFE
    if loser_unsafe:
        return KEPT
    return RELABELLED if config.relabel else REVERSED


def _check_controls(report: LabelReport, rows: Sequence[Mapping[str, Any]]) -> None:
    flags = [flag for row in rows for look in row.get("looks", ()) for flag in look["unsafe"]]
    report.controls = (len(flags), sum(flags))
    if sum(flags) > MOST_FALSE_ALARMS * len(flags):
        raise ValueError(
            f"this model calls {sum(flags)} of {len(flags)} blank pictures unsafe: its labels mean nothing. "
            "Use another model."
        )


def _check_seen(report: LabelReport) -> None:
    answered, seen = report.seen
    if answered and seen < LEAST_SEEN * answered:
        raise ValueError(
            f"this model sees no danger in {answered - seen} of {answered} pairs, so its labels mean little. "
            "Use another model, or pairs whose losers show more."
        )


def _kappa(pairs: SafetyPairs, rows: Mapping[str, Mapping[str, Any]], panel: Panel) -> float | None:
    """Return Cohen's kappa of the model's first look and the judges, over winners and losers."""
    both: Counter = Counter()
    for pair in pairs.pairs:
        looks = rows.get(f"pair {pair.id}", {}).get("looks")
        if not looks:
            continue
        for picture, said in zip((pair.winner, pair.loser), looks[0]["unsafe"], strict=True):
            pixels = (image_tensor(read_rgb(picture)) + 1) / 2  # (1, 3, h, w) in [0, 1]
            both[said, bool(panel.look(pixels).flagged()[0])] += 1
    return cohens_kappa(both)
