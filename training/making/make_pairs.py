"""Draw preference pairs, let a judge accept or reject them, and write each as soon as it is whole."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..config import MakeConfig
from ..system.pictures import eight_bit, pillow_images
from .journal import SIDES, Journal, MakingReport, file_name
from .prompt_pairs import PromptPair
from .weigh_pairs import is_safe, is_unsafe, pair_scores, rounded

if TYPE_CHECKING:
    from pathlib import Path

    from ..evaluation import Panel, Verdict

LOSER_SAFE = "the unsafe prompt drew nothing unsafe"
WINNER_UNSAFE = "the safe prompt drew something unsafe"
AHEAD = 128  # rows whose prompts are encoded at once


class Draw(Protocol):
    """Draws one picture, (1, 3, h, w) in [0, 1]; the same for the same arguments.

    `source` is a picture to start from, `strength` the share of the sampling that changes it.
    """

    def __call__(
        self,
        prompt: str,
        *,
        seed: int,
        negative: str = "",
        source: Tensor | None = None,
        strength: float = 1.0,
    ) -> Tensor: ...


class _Task(NamedTuple):
    """One row to make: its id, and the prompts it is made from."""

    name: str
    prompts: PromptPair


@dataclass(frozen=True)
class _Maker:
    draw: Draw
    config: MakeConfig
    panel: Panel | None
    facts: Mapping[str, Any]


def make_pairs(
    prompts: Sequence[PromptPair],
    draw: Draw,
    folder: Path,
    config: MakeConfig,
    *,
    panel: Panel | None = None,
    facts: Mapping[str, Any],
    shard: tuple[int, int] = (0, 1),
    encode_ahead: Callable[[Sequence[str]], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> MakingReport:
    """Draw the pairs that are not in the folder yet.

    Every row is on disk with its pictures before the next is drawn, so a run that is killed or cancelled
    goes on where it was, and ends with the same files. A row whose picture is gone is drawn again. Unsafe
    pictures go into the folder and nowhere else.

    Args:
        prompts: what to draw; ids are unique.
        draw: the model.
        folder: of the pairs; new, or one that was begun with the same settings.
        config: options.
        panel: judges. A pair is kept if its loser is flagged in one of its categories and its winner in
            none at all. A loser that is not flagged, but of which no judge sees every category, is not
            measured, and the pair is kept. None keeps all.
        facts: what else the pictures depend on, such as the model's hash and the sampler; plain values.
        shard: (number of this process, number of processes), which share the rows without overlap.
        encode_ahead: called with the prompts that `draw` is asked for next; None: it need not know.
        on_progress: called with (rows done, rows) of this process; whatever it raises stops the run.

    Returns:
        What became of all rows, those of other processes included.

    Raises:
        ValueError: as `Journal`.
    """
    judge = panel.label() if panel else None
    maker = _Maker(draw, config, panel, {**dataclasses.asdict(config), **facts, "judge": judge})
    tasks = [_Task(f"{pair.id}_{n}", pair) for pair in prompts for n in range(config.per_prompt)]
    names = [task.name for task in tasks]
    own = tasks[shard[0] :: shard[1]]
    journal = Journal(folder, {k: v for k, v in maker.facts.items() if k != "per_prompt"})  # may be raised
    journal.sweep(task.name for task in own)
    try:
        for done, task in enumerate(own):
            if on_progress:
                on_progress(done, len(own))
            if encode_ahead and done % AHEAD == 0:
                _tell(encode_ahead, own[done : done + AHEAD], journal)
            if not journal.is_done(task.name):
                _make(maker, task, journal)
        if on_progress:
            on_progress(len(own), len(own))
    finally:
        report = journal.finish(names)
    return report


def _tell(encode_ahead: Callable[[Sequence[str]], None], tasks: Sequence[_Task], journal: Journal) -> None:
    """Name the prompts of the rows that are still to be made, if there are any."""
    left = [task.prompts for task in tasks if not journal.is_done(task.name)]
    if left:
        encode_ahead([text for own in left for text in (own.unsafe_prompt, own.safe_prompt)])


def _make(maker: _Maker, task: _Task, journal: Journal) -> None:
    """Draw a row until the judges accept it, and write it, or that it was given up and why."""
    prompts, panel, rejected = task.prompts, maker.panel, []
    for attempt in range(maker.config.attempts):
        seed = _seed(maker.config.seed, task.name, attempt)
        loser, loser_verdict = _judged(maker, maker.draw(prompts.unsafe_prompt, seed=seed))
        if loser_verdict and is_unsafe(loser_verdict, prompts.categories) is False:
            rejected.append({"seed": seed, "reason": LOSER_SAFE, **_seen(prompts, loser_verdict)})
            continue
        winner, winner_verdict = _judged(maker, _draw_winner(maker, prompts, loser, seed))
        if winner_verdict and not is_safe(winner_verdict):
            seen = _seen(prompts, loser_verdict, winner_verdict)
            rejected.append({"seed": seed, "reason": WINNER_UNSAFE, **seen})
            continue
        row = _row(maker, task, seed=seed, attempt=attempt)
        if scores := panel and pair_scores(panel, loser_verdict, winner_verdict, prompts.categories):
            row["scores"] = scores
        names = (row["unsafe_image"], row["safe_image"])
        pictures = pillow_images(torch.cat([loser, winner]))
        return journal.write(task.name, row, dict(zip(names, pictures, strict=True)))
    given_up = {"rejected": rejected[-1]["reason"], "attempts": rejected, "made": maker.facts}
    journal.write(task.name, _asked(task) | given_up, {})


def _seen(prompts: PromptPair, loser: Verdict, winner: Verdict | None = None) -> dict[str, Any]:
    """Return the scores of an attempt that failed; a winner fails by any category that judges see."""
    scores = {"unsafe_image": rounded(loser.score(prompts.categories))}
    return {"scores": scores | ({"safe_image": rounded(winner.score())} if winner else {})}


def _judged(maker: _Maker, picture: Tensor) -> tuple[Tensor, Verdict | None]:
    """Return a picture as a file holds it, and what judges say of that."""
    picture = eight_bit(picture)
    return picture, maker.panel.look(picture) if maker.panel else None


def _draw_winner(maker: _Maker, prompts: PromptPair, loser: Tensor, seed: int) -> Tensor:
    if maker.config.way == "same_seed":
        return maker.draw(prompts.safe_prompt, seed=seed)
    return maker.draw(
        prompts.safe_prompt,
        seed=seed,
        negative=prompts.unsafe_prompt,
        source=loser,
        strength=maker.config.strength,
    )


def _asked(task: _Task) -> dict[str, Any]:
    return {
        "id": task.name,
        "category": list(task.prompts.categories),
        "unsafe_prompt": task.prompts.unsafe_prompt,
        "safe_prompt": task.prompts.safe_prompt,
    }


def _row(maker: _Maker, task: _Task, *, seed: int, attempt: int) -> dict[str, Any]:
    files = {f"{side}_image": file_name(task.name, side) for side in SIDES}
    return {**_asked(task), **files, "made": {**maker.facts, "seed": seed, "attempt": attempt}}


def _seed(seed: int, name: str, attempt: int) -> int:
    digest = hashlib.sha256(f"{seed}/{name}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:6], "big")
