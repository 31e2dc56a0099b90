"""Train a safety cost model on pairs, and measure it on pairs that the scoring head has not seen.

    loss = rank + anchor + contrast_weight * contrast
    rank     = mean softplus(-(C(loser) - C(winner)))                  the loser costs more
    anchor   = mean softplus(-C(loser)) + mean softplus(C(winner))     the sign says unsafe or safe
    contrast = supervised InfoNCE on the projections                   one kind lies close together

SC-DPO (arXiv:2504.14290) names a contrastive and a cost-anchoring objective in its abstract and gives no
formula there. Rank and anchor are those of SafeRLHF's cost model (Dai et al. 2023, arXiv:2310.12773), the
contrast is that of Khosla et al. 2020 (arXiv:2004.11362); joining them so is our reading.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import CostConfig
from ..models.noise import named_generator
from ..pairs.pair import SafetyPairs
from ..pairs.rows import prompt_key
from ..system.pictures import picture_tensor
from .cost_figures import CostFigures, cost_figures
from .cost_model import CostHead, CostModel, ImageEncoder, picture_digest

TEMPERATURE = 0.1  # of the contrast, as in Khosla et al.
_DECAY = 1e-2  # AdamW's
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class TrainedCost:
    """A cost model and how it came about.

    Attributes:
        model: ready to be written.
        losses: of every step, the mean over the heads.
        held_out: each pair scored by the head that was trained without it.
        costs: of these losers and winners, and of neutral pictures: kind -> (n,), for a picture.
        num_scenes: groups of pairs that share a prompt or a picture.
    """

    model: CostModel
    losses: list[float]
    held_out: CostFigures
    costs: dict[str, Tensor]
    num_scenes: int

    def report(self) -> str:
        """Return it in words."""
        heads = len(self.model.heads)
        return "\n".join(
            [
                f"{len(self.costs['unsafe'])} pairs of {self.num_scenes} scenes, "
                f"{', '.join(self.model.categories)}; embedding: {self.model.encoder.kind}",
                f"{heads} heads of {len(self.losses)} steps, loss {self.losses[0]:.3f} -> "
                f"{self.losses[-1]:.3f}; each is measured on the part of the scenes it was trained without",
                self.held_out.report(),
            ]
        )


def train_cost(
    pairs: SafetyPairs,
    encoder: ImageEncoder,
    config: CostConfig,
    *,
    on_progress: Progress | None = None,
) -> TrainedCost:
    """Train a cost model.

    Pairs that share a prompt or a picture are one scene and never on both sides of a fold, because a head
    would recognise the scene.

    Args:
        pairs: losers are unsafe and winners safe; neutral samples are only measured.
        encoder: frozen; each picture is encoded once.
        config: options.
        on_progress: called with (stage, done, total); whatever it raises stops the training.

    Raises:
        ValueError: if there are fewer scenes than folds, or an embedding is not finite.
        RuntimeError: if the loss is not finite.
    """
    progress = on_progress or (lambda stage, done, total: None)
    pictures = _Pictures.of(pairs, encoder, lambda done, total: progress("encode", done, total))
    scenes = _scenes(pairs, pictures)
    folds = _folds(scenes, config)  # (pairs,)
    kinds = 1 + torch.tensor([pairs.categories.index(pair.categories[0]) for pair in pairs.pairs])
    heads, curves = [], []
    for number in range(config.folds):
        done = number * config.steps
        trainer = _Trainer(pictures, kinds, (folds != number).nonzero()[:, 0], config, number)
        curves.append(
            trainer.run(lambda step, done=done: progress("train", done + step, config.folds * config.steps))
        )
        heads.append(trainer.head)
    digests = {
        digest: int(fold)
        for row, fold in zip(pictures.digests, folds.tolist(), strict=True)
        for digest in row
    }
    model = CostModel(tuple(heads), encoder, pairs.categories, digests)
    costs = _held_out_costs(model, pictures, folds)
    held_out = cost_figures(**costs)
    facts = {"options": asdict(config), "pairs": pairs.content_hash, "held_out": held_out.facts()}
    model = CostModel(model.heads, encoder, model.categories, digests, facts)
    losses = torch.tensor(curves).mean(dim=0).tolist()
    return TrainedCost(model, losses, held_out, costs, len(set(scenes)))


def cost_loss(
    losers: tuple[Tensor, Tensor], winners: tuple[Tensor, Tensor], kinds: Tensor, contrast_weight: float
) -> Tensor:
    """Return the loss of a batch, shape ().

    Args:
        losers: costs (n,) and normalised projections (n, width) of the unsafe pictures.
        winners: likewise of the safe pictures, in the same order.
        kinds: category of each loser, from 1 on, (n,); 0 is safe.
        contrast_weight: of the contrast.
    """
    rank = F.softplus(-(losers[0] - winners[0])).mean()
    anchor = F.softplus(-losers[0]).mean() + F.softplus(winners[0]).mean()
    if contrast_weight == 0:
        return rank + anchor
    projections = torch.cat([losers[1], winners[1]])
    return (
        rank + anchor + contrast_weight * contrast(projections, torch.cat([kinds, torch.zeros_like(kinds)]))
    )


def contrast(projections: Tensor, kinds: Tensor) -> Tensor:
    """Return the supervised InfoNCE loss over anchors that have another picture of their kind, shape ().

    Args:
        projections: normalised, (n, width).
        kinds: label of each, (n,).
    """
    itself = torch.eye(len(kinds), dtype=torch.bool)
    logits = (projections @ projections.T / TEMPERATURE).masked_fill(itself, -torch.inf)
    same = (kinds[:, None] == kinds) & ~itself
    log_shares = logits.log_softmax(dim=1).masked_fill(~same, 0.0)
    has_same = same.any(dim=1)
    if not bool(has_same.any()):
        return projections.new_zeros(())
    return -(log_shares.sum(dim=1)[has_same] / same.sum(dim=1)[has_same]).mean()


@dataclass(frozen=True)
class _Pictures:
    """Embeddings and digests of losers and winners, and embeddings of neutral pictures."""

    losers: Tensor  # (pairs, width)
    winners: Tensor
    neutral: Tensor  # (samples, width)
    digests: list[tuple[str, str]]

    @classmethod
    def of(
        cls, pairs: SafetyPairs, encoder: ImageEncoder, on_progress: Callable[[int, int], None]
    ) -> _Pictures:
        sides = [[pair.loser for pair in pairs.pairs], [pair.winner for pair in pairs.pairs]]
        groups = [*sides, [sample.image for sample in pairs.neutral]]
        files = dict.fromkeys(file for group in groups for file in group)
        embeds, digests = {}, {}
        for number, file in enumerate(files, start=1):
            picture = picture_tensor(file)
            embeds[file], digests[file] = encoder.normalised(picture)[0], picture_digest(picture[0])
            on_progress(number, len(files))
        rows = [
            torch.stack([embeds[file] for file in group]) if group else torch.empty(0) for group in groups
        ]
        return cls(*rows, [(digests[loser], digests[winner]) for loser, winner in zip(*sides, strict=True)])


class _Trainer:
    """Training of one head on some of the pairs."""

    def __init__(
        self, pictures: _Pictures, kinds: Tensor, rows: Tensor, config: CostConfig, number: int
    ) -> None:
        self.head = CostHead.drawn(
            pictures.losers.shape[1], named_generator(f"cost head/{config.seed}/{number}")
        )
        self._pictures, self._kinds, self._rows, self._config = pictures, kinds, rows, config
        self._generator = named_generator(f"cost batches/{config.seed}/{number}")
        self._optimizer = torch.optim.AdamW(
            self.head.parameters(), lr=config.learning_rate, weight_decay=_DECAY, foreach=True
        )

    def run(self, on_step: Callable[[int], None]) -> list[float]:
        """Train, freeze the head, and return the loss of every step."""
        losses = []
        for step in range(1, self._config.steps + 1):
            losses.append(self._step())
            on_step(step)
        self.head.requires_grad_(False).eval()
        return losses

    def _step(self) -> float:
        order = torch.randperm(len(self._rows), generator=self._generator)[: self._config.batch_size]
        rows = self._rows[order]
        losers, winners = (self.head(side[rows]) for side in (self._pictures.losers, self._pictures.winners))
        loss = cost_loss(losers, winners, self._kinds[rows], self._config.contrast_weight)
        if not bool(loss.isfinite()):
            raise RuntimeError(
                "the loss of the cost model is not finite. Train again at a lower learning_rate."
            )
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())


def _scenes(pairs: SafetyPairs, pictures: _Pictures) -> list[int]:
    """Return the number of the scene of each pair: pairs that share a prompt or a picture have the same."""
    parent = list(range(len(pairs.pairs)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    first: dict[str, int] = {}
    for row, (pair, digests) in enumerate(zip(pairs.pairs, pictures.digests, strict=True)):
        for key in (prompt_key(pair.unsafe_prompt), prompt_key(pair.safe_prompt), *digests):
            parent[root(row)] = root(first.setdefault(key, row))
    return [root(row) for row in range(len(parent))]


def _folds(scenes: Sequence[int], config: CostConfig) -> Tensor:
    """Return the fold of each pair, (pairs,): whole scenes in random order, each to the smallest fold."""
    names = sorted(set(scenes))
    if len(names) < config.folds:
        raise ValueError(
            f"{config.folds} folds need as many scenes (pairs that share no prompt and no picture), got "
            f"{len(names)} in {len(scenes)} pairs. Use pairs of more prompts, or fewer folds."
        )
    order = torch.randperm(len(names), generator=named_generator(f"cost folds/{config.seed}")).tolist()
    sizes, fold_of = [0] * config.folds, {}
    for name in (names[place] for place in order):
        fold_of[name] = sizes.index(min(sizes))
        sizes[fold_of[name]] += scenes.count(name)
    return torch.tensor([fold_of[scene] for scene in scenes])


def _held_out_costs(model: CostModel, pictures: _Pictures, folds: Tensor) -> dict[str, Tensor]:
    rows = torch.arange(len(folds))
    costs = {
        "unsafe": model.of_embeddings(pictures.losers)[folds, rows],
        "safe": model.of_embeddings(pictures.winners)[folds, rows],
    }
    if len(pictures.neutral):
        costs["neutral"] = model.of_embeddings(pictures.neutral).mean(dim=0)
    return costs
