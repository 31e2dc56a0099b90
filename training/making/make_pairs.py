"""Draw preference pairs, let judges accept or reject them, and write each pair as soon as it is complete."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..config import MakeConfig
from ..system.picture_looks import look_of
from ..system.pictures import eight_bit, pillow_images
from .journal import LOOKS, SIDES, Journal, MakingReport, file_name
from .prompt_pairs import PromptPair
from .weigh_pairs import is_safe, is_unsafe, pair_scores, rounded

if TYPE_CHECKING:
    from pathlib import Path

    from ..evaluation import Panel, Verdict

LOSER_SAFE = "the unsafe prompt drew nothing unsafe"
WINNER_UNSAFE = "the safe prompt drew something unsafe"
AHEAD = 128  # rows whose prompts are encoded at once


class Draw(Protocol):
    """Draws one picture, (1, 3, h, w) in [0, 1]; equal arguments give equal pictures.

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


@dataclass(frozen=True)
class DrawingModel:
    """The model that draws the pairs.

    Args:
        draw: draws one picture.
        facts: what the pictures depend on besides the options, such as the model's hash and the sampler.
            Plain values, recorded in every row.
        encode_ahead: called with the prompts that are drawn next; None if `draw` needs no notice.
    """

    draw: Draw
    facts: Mapping[str, Any]
    encode_ahead: Callable[[Sequence[str]], None] | None = None


class _Task(NamedTuple):
    """One row to make: its id and its prompts."""

    name: str
    prompts: PromptPair


@dataclass(frozen=True)
class _Maker:
    """What all rows share; `facts` are recorded in each."""

    draw: Draw
    config: MakeConfig
    panel: Panel | None
    facts: Mapping[str, Any]


def make_pairs(
    prompts: Sequence[PromptPair],
    model: DrawingModel,
    folder: Path,
    config: MakeConfig,
    *,
    panel: Panel | None = None,
    shard: tuple[int, int] = (0, 1),
    on_progress: Callable[[int, int], None] | None = None,
) -> MakingReport:
    """Draw the pairs that are not in the folder yet.

    Each row is on disk with its pictures before the next row is drawn, so a killed or cancelled run continues
    where it stopped and ends with the same files. A row whose picture is missing is drawn again. Unsafe
    pictures are written to the folder only.

    Args:
        prompts: prompts to draw, with unique ids.
        model: the model that draws.
        folder: folder of the pairs; new, or begun with the same settings.
        config: options.
        panel: judges. A pair is kept if its loser is flagged in one of its categories and its winner in no
            category. If the loser is not flagged and the judges do not cover all of its categories, the pair
            is not measured, and kept. None keeps all pairs.
        shard: (index of this process, number of processes); each row belongs to one process.
        on_progress: called with (rows done, rows) of this process; an exception it raises stops the run.

    Returns:
        A report on all rows, including those of other processes.

    Raises:
        ValueError: if the folder holds something else, or pairs made with other settings.
    """
    judge = panel.label() if panel else None
    maker = _Maker(model.draw, config, panel, {**dataclasses.asdict(config), **model.facts, "judge": judge})
    all_tasks = [_Task(f"{pair.id}_{n}", pair) for pair in prompts for n in range(config.per_prompt)]
    tasks = all_tasks[shard[0] :: shard[1]]
    settings = {name: fact for name, fact in maker.facts.items() if name != "per_prompt"}  # may be raised
    journal = Journal(folder, settings)
    journal.sweep(task.name for task in tasks)
    drawn = 0
    try:
        for done, task in enumerate(tasks):
            if on_progress:
                on_progress(done, len(tasks))
            if model.encode_ahead and done % AHEAD == 0:
                _encode_ahead(model.encode_ahead, tasks[done : done + AHEAD], journal)
            if not journal.is_done(task.name):
                _make(maker, task, journal)
                drawn += 1
        if on_progress:
            on_progress(len(tasks), len(tasks))
    finally:
        report = journal.finish([task.name for task in all_tasks])
    return dataclasses.replace(report, drawn=drawn)


def _encode_ahead(encode: Callable[[Sequence[str]], None], tasks: Sequence[_Task], journal: Journal) -> None:
    """Encode the prompts of the rows that are not done, if there are any."""
    pairs = [task.prompts for task in tasks if not journal.is_done(task.name)]
    if pairs:
        encode([prompt for pair in pairs for prompt in (pair.unsafe_prompt, pair.safe_prompt)])


def _make(maker: _Maker, task: _Task, journal: Journal) -> None:
    """Draw a row until the judges accept it, and write it; after all attempts write why it was given up."""
    prompts, panel, rejected = task.prompts, maker.panel, []
    for attempt in range(maker.config.attempts):
        seed = _seed(maker.config.seed, task.name, attempt)
        loser, loser_verdict = _judged(maker, maker.draw(prompts.unsafe_prompt, seed=seed))
        if loser_verdict and is_unsafe(loser_verdict, prompts.categories) is False:
            scores = _scores(prompts, loser_verdict)
            rejected.append({"seed": seed, "reason": LOSER_SAFE, "scores": scores, LOOKS: _looks(loser)})
            continue
        winner, winner_verdict = _judged(maker, _draw_winner(maker, prompts, loser, seed))
        if winner_verdict and not is_safe(winner_verdict):
            scores = _scores(prompts, loser_verdict, winner_verdict)
            looks = _looks(loser, winner)
            rejected.append({"seed": seed, "reason": WINNER_UNSAFE, "scores": scores, LOOKS: looks})
            continue
        row = _row(maker, task, seed=seed, attempt=attempt)
        row["made"][LOOKS] = _looks(loser, winner)
        if scores := panel and pair_scores(panel, loser_verdict, winner_verdict, prompts.categories):
            row["scores"] = scores
        names = (row["unsafe_image"], row["safe_image"])
        pictures = pillow_images(torch.cat([loser, winner]))
        return journal.write(task.name, row, dict(zip(names, pictures, strict=True)))
    given_up = {"rejected": rejected[-1]["reason"], "attempts": rejected, "made": maker.facts}
    journal.write(task.name, _prompt_fields(task) | given_up, {})


def _scores(prompts: PromptPair, loser: Verdict, winner: Verdict | None = None) -> dict[str, float | None]:
    """Return the scores of a failed attempt; a winner fails by any category that the judges cover."""
    scores = {"unsafe_image": rounded(loser.score(prompts.categories))}
    return scores | ({"safe_image": rounded(winner.score())} if winner else {})


def _looks(*pictures: Tensor) -> list[str]:
    return [look_of(picture) for picture in pictures]


def _judged(maker: _Maker, picture: Tensor) -> tuple[Tensor, Verdict | None]:
    """Return a picture in the eight bits that its file holds, and the verdict on it."""
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


def _prompt_fields(task: _Task) -> dict[str, Any]:
    return {
        "id": task.name,
        "category": list(task.prompts.categories),
        "unsafe_prompt": task.prompts.unsafe_prompt,
        "safe_prompt": task.prompts.safe_prompt,
    }


def _row(maker: _Maker, task: _Task, *, seed: int, attempt: int) -> dict[str, Any]:
    files = {f"{side}_image": file_name(task.name, side) for side in SIDES}
    return {**_prompt_fields(task), **files, "made": {**maker.facts, "seed": seed, "attempt": attempt}}


def _seed(seed: int, name: str, attempt: int) -> int:
    digest = hashlib.sha256(f"{seed}/{name}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:6], "big")
