"""Train Latent Guard's head on encoded prompts, keep its best state, and set its threshold.

Written after Liu et al. 2024, arXiv:2404.08031, and the released code. Ours: rows after the end mark are not
read (`encoder`), the threshold is set on harmless prompts at a chosen false-positive rate, and the state with
the best AUROC on held-out prompts is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import GuardConfig
from ..evaluation.roc import Detection, auroc, detection
from ..models.noise import named_generator
from ..pairs.rows import prompt_key
from ..rules.hard_rule import joins_minor_and_sexual
from .calibration import calibrate, fewest_prompts
from .concept_data import ConceptData, ConceptRow
from .concept_guard import ConceptGuard, GuardConcept
from .concept_head import ConceptHead, HeadShape, concept_loss, score_blocks
from .encoder import GuardEncoder, Rows, encode_rows, padded

_DECAY = 0.01  # AdamW's, as in the released code
_CHECK_EVERY = 100  # steps between two measurements of the held-out prompts
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class TrainedGuard:
    """A guard and how it came about.

    Attributes:
        guard: ready to be saved.
        losses: of every step.
        held_out: held-out unsafe prompts of its own concepts against their safe twins; None: not measured.
        unseen: the same of concepts that the guard does not have; None: not measured.
        scores: of held-out unsafe and safe prompts and of harmless ones, for a picture.
    """

    guard: ConceptGuard
    losses: list[float]
    held_out: Detection | None
    unseen: Detection | None
    scores: dict[str, Tensor]

    def report(self) -> str:
        """Return it in words."""
        figures = {"held-out prompts": self.held_out, "concepts it was never told": self.unseen}
        lines = [f"{what}: {known.line() if known else 'not measured'}" for what, known in figures.items()]
        loss = f"{len(self.losses)} steps, loss {self.losses[0]:.3f} -> {self.losses[-1]:.3f}"
        return "\n".join([self.guard.describe(), loss, *lines])


@dataclass(frozen=True)
class _Split:
    """Rows by use: to train on, held out of trained concepts, and of concepts that are left out whole."""

    trained: tuple[ConceptRow, ...]
    held_out: tuple[ConceptRow, ...]
    unseen: tuple[ConceptRow, ...]


def train_concept_guard(
    data: ConceptData,
    encoder: GuardEncoder,
    config: GuardConfig,
    *,
    harmless: Sequence[str],
    cache: Path | None = None,
    on_progress: Progress | None = None,
) -> TrainedGuard:
    """Train a guard.

    Args:
        data: concepts and their prompts.
        encoder: of the model that the guard will stand in front of.
        config: options.
        harmless: prompts that must not be blocked, to set the threshold on; those that are trained on, and
            those that the rule on minors forbids, are left out.
        cache: folder that keeps encoded prompts, so that a run that was stopped encodes none again.
        on_progress: called with (stage, done, total); whatever it raises stops the training, and nothing is
            written.

    Raises:
        ValueError: if there are fewer than two concepts, or too few harmless prompts.
        RuntimeError: if the loss is not finite.
    """
    progress = on_progress or (lambda stage, done, total: None)
    split = _split(data, config)
    harmless = _usable(harmless, data)
    if len(harmless) < fewest_prompts(config.target_fpr):
        raise ValueError(_too_few(len(harmless), config))
    texts = [text for row in data.rows for text in (row.unsafe, row.safe)]
    words = list(dict.fromkeys(row.concept for row in split.trained))
    rows = encode_rows(
        encoder, [*words, *texts, *harmless], cache, lambda done, total: progress("encode", done, total)
    )
    concept_rows = torch.stack([rows[word][0][0].float() for word in words])
    shape = HeadShape(concept_rows.shape[1], config.heads, config.head_width, config.out_width)
    head = ConceptHead.drawn(shape, named_generator(f"guard head/{config.seed}"))
    held_out = _Pairs(rows, split.held_out, concept_rows)
    trainer = _Trainer(head, rows, split.trained, words, concept_rows, config)
    losses = trainer.run(held_out, lambda done: progress("train", done, config.steps))
    benign = _best(head, [rows[prompt] for prompt in harmless], concept_rows)
    calibration = calibrate(benign, harmless, config.target_fpr)
    concepts = tuple(_concept(word, data.concepts[word], config) for word in words)
    guard = ConceptGuard(head, concepts, concept_rows, encoder, calibration, calibration.threshold)
    held, unseen = held_out.detect(guard), _Pairs(rows, split.unseen, concept_rows).detect(guard)
    guard.facts.update(_facts(data, config, held, unseen))
    scores = {"harmless": benign, **held_out.scores(head)}
    return TrainedGuard(guard, losses, held, unseen, scores)


class _Trainer:
    """Steps of one training; the head is changed in place."""

    def __init__(
        self,
        head: ConceptHead,
        rows: Rows,
        samples: Sequence[ConceptRow],
        words: Sequence[str],
        concept_rows: Tensor,
        config: GuardConfig,
    ) -> None:
        self._head, self._rows, self._concept_rows, self._config = head, rows, concept_rows, config
        by_concept: dict[str, list[ConceptRow]] = {word: [] for word in words}
        for row in samples:
            by_concept[row.concept].append(row)
        self._by_concept = list(by_concept.values())
        self._generator = named_generator(f"guard batches/{config.seed}")
        self._optimizer = torch.optim.AdamW(
            head.parameters(), lr=config.learning_rate, weight_decay=_DECAY, foreach=True
        )

    def run(self, held_out: _Pairs, on_step: Callable[[int], None]) -> list[float]:
        """Train, leave the head in its best state, and return the loss of every step."""
        losses, best = [], (-1.0, None)
        for step in range(1, self._config.steps + 1):
            losses.append(self._step())
            is_last = step == self._config.steps
            if held_out and (step % _CHECK_EVERY == 0 or is_last):
                area = auroc(*(held_out.scores(self._head)[kind] for kind in ("unsafe", "safe")))
                if area > best[0]:
                    best = area, {name: value.clone() for name, value in self._head.state_dict().items()}
            on_step(step)
        if best[1] is not None:
            self._head.load_state_dict(best[1])
        self._head.requires_grad_(False).eval()
        return losses

    def _step(self) -> float:
        count = min(self._config.batch_size, len(self._by_concept))
        chosen = torch.randperm(len(self._by_concept), generator=self._generator)[:count]
        samples = [self._sample(number) for number in chosen.tolist()]
        concepts, scale = self._concept_rows[chosen], self._head.scale
        unsafe = scale * self._head(*self._blocks([row.unsafe for row in samples]), concepts)  # (n, n)
        safe = None
        if self._config.safe_negatives:
            safe = scale * self._head(*self._blocks([row.safe for row in samples]), concepts)
        loss = concept_loss(unsafe, safe)
        if not bool(loss.isfinite()):
            raise RuntimeError("the loss of the guard is not finite. Train again at a lower learning_rate.")
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())

    def _sample(self, number: int) -> ConceptRow:
        samples = self._by_concept[number]
        return samples[int(torch.randint(len(samples), (), generator=self._generator))]

    def _blocks(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return padded([self._rows[prompt][0] for prompt in prompts])  # of a long prompt its first block


class _Pairs:
    """Encoded unsafe prompts and their safe twins, to measure a head on."""

    def __init__(self, rows: Rows, samples: Sequence[ConceptRow], concept_rows: Tensor) -> None:
        self._concept_rows = concept_rows
        self._blocks = {
            "unsafe": [rows[row.unsafe] for row in samples],
            "safe": [rows[row.safe] for row in samples],
        }

    def __bool__(self) -> bool:
        return bool(self._blocks["unsafe"])

    def scores(self, head: ConceptHead) -> dict[str, Tensor]:
        """Return the highest score of each prompt by kind; empty without prompts."""
        return {
            kind: _best(head, blocks, self._concept_rows) for kind, blocks in self._blocks.items() if blocks
        }

    def detect(self, guard: ConceptGuard) -> Detection | None:
        """Return the measures of a guard on these prompts; None without prompts."""
        if not self:
            return None
        scores = self.scores(guard.head)
        return detection(scores["unsafe"], scores["safe"], guard.threshold)


def _best(head: ConceptHead, prompts: Sequence[Sequence[Tensor]], concept_rows: Tensor) -> Tensor:
    """Return the highest score of each prompt over its blocks and all concepts, (prompts,)."""
    blocks = [block for prompt in prompts for block in prompt]
    best = score_blocks(head, blocks, concept_rows).max(dim=1).values
    return torch.stack([scores.max() for scores in best.split([len(prompt) for prompt in prompts])])


def _split(data: ConceptData, config: GuardConfig) -> _Split:
    """Leave out whole concepts and single prompts; every concept that stays keeps a prompt to train on."""
    generator = named_generator(f"guard split/{config.seed}")

    def shuffled(items: Sequence[Any]) -> list[Any]:
        return [items[number] for number in torch.randperm(len(items), generator=generator).tolist()]

    words = shuffled(list(data.concepts))
    left_out = set(words[: round(config.holdout_concepts * len(words))])
    rows = shuffled([row for row in data.rows if row.concept not in left_out])
    most, held_out, kept = round(config.holdout * len(rows)), [], {}
    for row in rows:
        kept.setdefault(row.concept, []).append(row)
    for row in rows:
        if len(held_out) < most and len(kept[row.concept]) > 1:
            kept[row.concept].remove(row)
            held_out.append(row)
    if len(kept) < 2:
        raise ValueError(
            f"a guard compares concepts with each other and needs at least two, got {len(kept)}. Give "
            "prompts of more concepts."
        )
    remaining = {row for of_concept in kept.values() for row in of_concept}
    trained = tuple(row for row in data.rows if row in remaining)
    return _Split(trained, tuple(held_out), tuple(row for row in data.rows if row.concept in left_out))


def _usable(harmless: Sequence[str], data: ConceptData) -> list[str]:
    """Return the harmless prompts that may set a threshold, shuffled by their own hashes."""
    trained = {prompt_key(text) for row in data.rows for text in (row.unsafe, row.safe)}
    allowed = {prompt_key(prompt): prompt for prompt in harmless if not joins_minor_and_sexual((), prompt)}
    prompts = [prompt for key, prompt in allowed.items() if key and key not in trained]
    return sorted(prompts, key=lambda prompt: hashlib.sha256(prompt.encode()).digest())


def _too_few(count: int, config: GuardConfig) -> str:
    return (
        f"the threshold needs at least {fewest_prompts(config.target_fpr)} harmless prompts that the guard "
        f"is not trained on, got {count}. Give more, or raise target_fpr."
    )


def _concept(word: str, category: str, config: GuardConfig) -> GuardConcept:
    return GuardConcept(word if config.store_concepts else "", category)


def _facts(
    data: ConceptData, config: GuardConfig, held: Detection | None, unseen: Detection | None
) -> dict[str, Any]:
    texts = json.dumps([list(row) for row in data.rows])
    return {
        "options": asdict(config),
        "data_hash": hashlib.sha256(texts.encode()).hexdigest(),
        "held_out": held.facts() if held else None,
        "unseen_concepts": unseen.facts() if unseen else None,
    }
