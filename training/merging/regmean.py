"""RegMean (Jin et al. 2022, arXiv:2212.09849) on the experts' updates, with neutral inputs added."""

import re
import weakref
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..config import MergeConfig
from ..experts.low_rank import LowRank, concatenate
from .collector import tokens_of
from .layer import MergedLayer
from .members import Member

# Layers of the prompt meet a few dozen texts, those of the picture thousands of places in it: of these
# calibration says more. What this is worth stands at `regmean`.
_READS_NO_PICTURE = re.compile(r"(attn2\.to_[kv]|time_emb_proj|_embedding\.linear_[12])$")
_PICTURE_RIDGE = 0.1  # of the config's


class LayerResponses(NamedTuple):
    """The experts of one layer fitted to its inputs; one tensor per expert.

    With G_e the mean of x x^T over the inputs of expert e's categories, and M the sum of all G_e, of that of
    the neutral inputs times neutral_weight, and of the ridge (a tenth of it in layers that read the picture):

    Attributes:
        fitted: A_e G_e M^-1, (rank_e, d_in): the factor `down` of the least-squares fit.
    """

    fitted: tuple[Tensor, ...]


class ResponseCollector:
    """Sums second moments of what the layers get; see `Collector`.

    Memory: one d_in x d_in matrix in fp32 on the CPU for each distinct input (q, k and v share theirs, all
    cross-attention layers share the prompt), whatever the number of experts: with attention targets about
    0.2 GB for SD 1.5 and 1.6 GB for SDXL while the pass lasts. What remains has the size of the experts.
    """

    kind: ClassVar[str] = "responses"
    needs_categories: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ("neutral_weight", "ridge")

    def __init__(
        self,
        members: Sequence[Member],
        parts: Mapping[str, Sequence[LowRank]],
        categories: Sequence[str] | None,
        config: MergeConfig,
    ) -> None:
        self._parts = parts
        self._config = config
        self._owners = _owners(members, categories)
        self._shares = {name: 1 / categories.count(name) for name in set(categories)}
        self._moments: dict[str, Tensor] = {}  # by the first layer that gets the input
        self._source: dict[str, str] = {}
        self._cross = {
            module: [torch.zeros_like(p.down, device="cpu") for p in own] for module, own in parts.items()
        }
        self._seen: list[tuple[weakref.ref, str]] = []
        self._batch: Sequence[str] = ()

    def begin(self, number: int, categories: Sequence[str] | None) -> None:
        """Note the categories of the batch; a new pass gets new inputs."""
        self._batch = categories
        self._seen = []

    def add(self, module: str, inputs: Tensor) -> None:
        """Add x x^T of the batch to the moments, and A_e x x^T to those of the experts that own x."""
        tokens = tokens_of(inputs)
        weights = self._weights(tokens)  # (experts + 1, batch), the last for all
        self._add_moment(module, inputs, tokens, weights[-1])
        for expert, part in enumerate(self._parts[module]):
            rows = weights[expert] > 0
            if rows.any():
                x = tokens[rows].flatten(0, 1)
                hidden = (x @ part.down.T) * weights[expert][rows].repeat_interleave(tokens.shape[1])[:, None]
                self._cross[module][expert] += (hidden.T @ x).to("cpu")

    def agreement(self) -> None:
        """Return None: there is no choice on which halves could agree."""

    def layers(self) -> dict[str, LayerResponses]:
        """Solve for every layer, in fp64; the moments are given up on the way."""
        waiting: dict[str, list[str]] = {}
        for module, source in self._source.items():
            waiting.setdefault(source, []).append(module)
        found = {}
        for source, modules in waiting.items():
            moment = self._moments.pop(source).double()
            firmness = self._config.ridge * (1.0 if _READS_NO_PICTURE.search(source) else _PICTURE_RIDGE)
            ridge = firmness * float(moment.trace()) / len(moment) or 1.0  # all inputs may be zero
            moment.diagonal().add_(ridge)
            factor = torch.linalg.cholesky(moment)
            for module in modules:
                found[module] = LayerResponses(
                    tuple(
                        torch.cholesky_solve(response.double().T, factor).T.float()
                        for response in self._cross.pop(module)  # A_e G_e, (rank_e, d_in)
                    )
                )
        return {module: found[module] for module in self._parts}

    @staticmethod
    def layer_of(groups: Sequence[Sequence[Tensor]]) -> LayerResponses:
        """Return the responses in a layer from their tensors."""
        return LayerResponses(*map(tuple, groups))

    def _weights(self, tokens: Tensor) -> Tensor:
        """Return how much each input of the batch counts for each expert, and for the sum."""
        rows = [[self._shares[c] if c in own else 0.0 for c in self._batch] for own in self._owners]
        neutral = [self._config.neutral_weight * self._shares[c] if c == "" else 0.0 for c in self._batch]
        own = torch.tensor(rows, device=tokens.device) / tokens.shape[1]
        return torch.cat(
            [own, (own.sum(0) + torch.tensor(neutral, device=own.device) / tokens.shape[1])[None]]
        )

    def _add_moment(self, module: str, inputs: Tensor, tokens: Tensor, weights: Tensor) -> None:
        source = next((name for seen, name in self._seen if seen() is inputs), None)
        self._source[module] = source or module
        if source is not None:
            return
        self._seen.append((weakref.ref(inputs), module))
        x = tokens.flatten(0, 1)
        moment = (x * weights.repeat_interleave(tokens.shape[1])[:, None]).T @ x
        if module in self._moments:
            self._moments[module] += moment.to("cpu")
        else:
            self._moments[module] = moment.to("cpu")


def _owners(members: Sequence[Member], categories: Sequence[str] | None) -> list[set[str]]:
    """Return the categories of each expert; refuse what leaves one without inputs of its own."""
    if categories is None:
        raise ValueError(
            "this method fits each expert on prompts of its own category, and these name none. Use safety "
            "pairs for calibration, or begin each line of text with its category, such as 'violence: '."
        )
    for expert, _ in members:
        if not set(expert.categories) & set(categories):
            stated = ", ".join(expert.categories) or "none"
            raise ValueError(
                f"{expert.name} has no calibration prompt of its own: its categories are: {stated}; those of "
                f"the prompts are: {', '.join(sorted({*categories} - {''}))}. Add prompts of its category."
            )
    return [set(expert.categories) for expert, _ in members]


def regmean(parts: Sequence[LowRank], *, statistics: LayerResponses) -> MergedLayer:
    """Return the update that answers like expert e on inputs of its categories, in the least squares.

    min_W sum_e E_e ||(W - delta_e) x||^2 + neutral_weight E_0 ||W x||^2 + ridge ||W||^2

    In layers that read the picture the ridge is a tenth of the config's. On the mini model that lowered the
    IP on words no pair uses from 15 and 16 of 56 to 10 and 8 with two sets of seven experts that did not
    choose it, from 13 to 10 with the one that did, and kept all 195 other pictures right. A tenth in every
    layer did not (14 of 56 with the last).

    W = sum_e delta_e G_e M^-1 (see `LayerResponses`), so B_e stays and A_e becomes A_e G_e M^-1: low rank,
    exact, at the sum of the ranks. Where the inputs of K categories cannot be told apart, this is their
    average; in a direction that calibration never met, the base model is left as it is. A ridge that pulls to
    the sum of the experts instead was tried on the mini model and kept fewer of the other pictures.

    Args:
        parts: update of each expert, strength folded into `up`.
        statistics: of the same experts in this layer; strengths do not enter.
    """
    pairs = zip(parts, statistics.fitted, strict=True)
    return MergedLayer(concatenate([LowRank(part.up, down.to(part.down)) for part, down in pairs]))
