"""RegMean (Jin et al. 2022, arXiv:2212.09849) on the experts' updates, with neutral inputs and a ridge.

The merged update of a layer answers like expert e on inputs of e's categories, in the least squares:

    min_W sum_e E_e ||(W - delta_e) x||^2 + neutral_weight E_0 ||W x||^2 + ridge ||W||^2

where E_e is the mean over the inputs of expert e's categories and E_0 that over neutral inputs. With
G_e = E_e x x^T and M the sum of all G_e, of neutral_weight G_0 and of the ridge, W = sum_e delta_e G_e M^-1.
So B_e stays and A_e becomes A_e G_e M^-1: exact, at the sum of the ranks.

The fit falls short of the experts, since other inputs pull it towards zero, and an expert at part of its
strength lets the unsafe picture pass. So each expert's share of W is then scaled up (`MOST`).

If the inputs of K categories cannot be told apart, W is the average of their updates, scaled up; in a
direction that no input has, the base model stays as it is.
"""

import weakref
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..config import MergeConfig
from ..experts.low_rank import LowRank, concatenate
from ..system.tensors import check_finite
from .collector import NOT_FINITE, tokens_of
from .layer import MergedLayer
from .members import Members

# The share of an expert is scaled up until W answers to its inputs as the expert does, but at most by this.
# Our choice. Seven experts on the large world: IP 0.11 and neutral concepts never seen 0.90 (a neutral weight
# of 8), against 0.22 and 0.91 unscaled (a weight of 2); two experts: 0.02 and 0.91 against 0.02 and 0.94.
MOST = 1.5


class LayerResponses(NamedTuple):
    """The experts of one layer, fitted to its inputs; one tensor per expert.

    Attributes:
        fitted: A_e G_e M^-1, scaled up, (rank_e, d_in): the factor `down` of the expert's share.
    """

    fitted: tuple[Tensor, ...]


def regmean(parts: Sequence[LowRank], *, statistics: LayerResponses) -> MergedLayer:
    """Return W, the sum of the experts' shares, at the sum of the ranks.

    Args:
        parts: update of each expert, strength folded into `up`.
        statistics: of the same experts in this layer; they do not depend on strengths.
    """
    pairs = zip(parts, statistics.fitted, strict=True)
    return MergedLayer(concatenate([LowRank(part.up, down.to(part.down)) for part, down in pairs]))


class ResponseCollector:
    """Sums the second moments of the layers' inputs, and solves for the fitted factors; see `Collector`.

    Memory: one d_in x d_in matrix in fp32 on the CPU for each distinct input (q, k and v share theirs, and
    all cross-attention layers share the prompt), whatever the number of experts: with attention targets
    about 0.2 GB for SD 1.5 and 1.6 GB for SDXL during the pass. The result has the size of the experts.
    """

    kind: ClassVar[str] = "responses"
    needs_categories: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ("neutral_weight", "ridge")

    def __init__(
        self,
        members: Members,
        parts: Mapping[str, Sequence[LowRank]],
        categories: Sequence[str] | None,
        config: MergeConfig,
    ) -> None:
        self._parts = parts
        self._config = config
        self._categories_of = _categories_of(members, categories)
        self._shares = {name: 1 / categories.count(name) for name in set(categories)}
        self._moments: dict[str, Tensor] = {}  # by source: the first layer that gets the input
        self._source: dict[str, str] = {}
        self._cross = {  # A_e G_e of each expert, (rank_e, d_in)
            module: [torch.zeros_like(part.down, device="cpu") for part in experts]
            for module, experts in parts.items()
        }
        self._pass_inputs: list[tuple[weakref.ref, str]] = []  # distinct inputs of this pass, their source
        self._batch: Sequence[str] = ()

    def begin(self, round_number: int, categories: Sequence[str] | None) -> None:
        """Remember the categories of the batch, and forget the inputs of the last pass."""
        self._batch = categories
        self._pass_inputs = []

    def add(self, module: str, inputs: Tensor) -> None:
        """Add x x^T of the batch to the moments, and A_e x x^T to those of the experts that own x."""
        tokens = tokens_of(inputs)
        weights = self._weights(tokens)  # (experts + 1, batch), the last row for the sum M
        self._add_moment(module, inputs, tokens, weights[-1])
        for expert, part in enumerate(self._parts[module]):
            rows = weights[expert] > 0
            if rows.any():
                x = tokens[rows].flatten(0, 1)
                hidden = (x @ part.down.T) * weights[expert][rows].repeat_interleave(tokens.shape[1])[:, None]
                self._cross[module][expert] += (hidden.T @ x).to("cpu")

    def agreement(self) -> None:
        """Return None: a fit makes no choices that halves could agree on."""

    def layers(self) -> dict[str, LayerResponses]:
        """Solve for every layer, in fp64; the moments are released on the way."""
        modules_of: dict[str, list[str]] = {}
        for module, source in self._source.items():
            modules_of.setdefault(source, []).append(module)
        responses = {}
        for source, modules in modules_of.items():
            moment = self._moments.pop(source).double()
            check_finite(moment, f"the second moments of the inputs of {source}", NOT_FINITE)
            ridge = self._config.ridge * float(moment.trace()) / len(moment)
            moment.diagonal().add_(ridge or 1.0)  # all inputs may be zero
            cholesky = torch.linalg.cholesky(moment)
            for module in modules:
                crosses = [cross.double() for cross in self._cross.pop(module)]
                fitted = [torch.cholesky_solve(cross.T, cholesky).T for cross in crosses]
                scales = _scales(self._parts[module], crosses, fitted)
                shares = (scale * down for scale, down in zip(scales, fitted, strict=True))
                responses[module] = LayerResponses(tuple(share.float() for share in shares))
        return {module: responses[module] for module in self._parts}

    @staticmethod
    def layer_of(groups: Sequence[Sequence[Tensor]]) -> LayerResponses:
        """Rebuild the responses of one layer from their tensors."""
        return LayerResponses(*map(tuple, groups))

    def _weights(self, tokens: Tensor) -> Tensor:
        """Return the weight of each input of the batch for each expert, and for the sum M."""
        rows = [
            [self._shares[name] if name in categories else 0.0 for name in self._batch]
            for categories in self._categories_of
        ]
        neutral = [
            self._config.neutral_weight * self._shares[name] if name == "" else 0.0 for name in self._batch
        ]
        by_expert = torch.tensor(rows, device=tokens.device) / tokens.shape[1]
        by_neutral = torch.tensor(neutral, device=tokens.device) / tokens.shape[1]
        return torch.cat([by_expert, (by_expert.sum(0) + by_neutral)[None]])

    def _add_moment(self, module: str, inputs: Tensor, tokens: Tensor, weights: Tensor) -> None:
        source = next((name for other, name in self._pass_inputs if other() is inputs), None)
        self._source[module] = source or module
        if source is not None:
            return
        self._pass_inputs.append((weakref.ref(inputs), module))
        x = tokens.flatten(0, 1)
        moment = (x * weights.repeat_interleave(tokens.shape[1])[:, None]).T @ x
        if module in self._moments:
            self._moments[module] += moment.to("cpu")
        else:
            self._moments[module] = moment.to("cpu")


def _scales(parts: Sequence[LowRank], crosses: Sequence[Tensor], fitted: Sequence[Tensor]) -> list[float]:
    """Return by how much the share of each expert is scaled up, from 1 to `MOST`.

    Along the expert's own answer delta_e x, W answers <W x, delta_e x> = tr(W G_e delta_e^T) in the mean over
    its inputs; the scale takes this to the expert's <delta_e x, delta_e x>.

    Args:
        parts: of each expert.
        crosses: A_e G_e, (rank_e, d_in) fp64.
        fitted: A_e G_e M^-1, likewise.
    """
    ups = [part.up.double().cpu() for part in parts]
    merged = torch.cat(ups, dim=1) @ torch.cat(list(fitted))  # W, (d_out, d_in)
    scales = []
    for part, up, cross in zip(parts, ups, crosses, strict=True):
        answer = float(((up.T @ merged) * cross).sum())
        wanted = float(((up.T @ up) * (cross @ part.down.double().cpu().T)).sum())
        scales.append(MOST if MOST * answer <= wanted else max(1.0, wanted / answer))
    return scales


def _categories_of(members: Members, categories: Sequence[str] | None) -> list[set[str]]:
    """Return the categories of each expert; raise if an expert has no calibration prompt."""
    if categories is None:
        raise ValueError(
            "this method fits each expert on prompts of its own category, but the prompts name none. Use "
            "safety pairs for calibration, or begin each line of text with its category, as in 'violence: '."
        )
    for expert, _ in members:
        if not set(expert.categories) & set(categories):
            raise ValueError(
                f"{expert.name} has no calibration prompt of its own: its categories are "
                f"{', '.join(expert.categories) or 'none'}, and those of the prompts are "
                f"{', '.join(sorted({*categories} - {''}))}. Add prompts of its category."
            )
    return [set(expert.categories) for expert, _ in members]
