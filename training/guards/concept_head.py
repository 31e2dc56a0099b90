"""Latent Guard's head and its loss (Liu et al. 2024, arXiv:2404.08031; released code: rt219/LatentGuard).

The head attends from a concept to the rows of a prompt, and compares what it gathers with the concept itself.
Keys and values are computed once per prompt and shared by all concepts; the released code computes them anew
for each concept, with the same result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoder import padded

START_SCALE = 1 / 0.07  # of the cosines in the loss, as in CLIP
_PART = 128  # blocks and concepts at once: the attention of 75 rows then takes 80 MB


class HeadShape(NamedTuple):
    """The sizes of a head: of the encoder's rows, number and width of the heads, and of the output."""

    width: int
    heads: int
    head_width: int
    out_width: int


class ConceptHead(nn.Module):
    """Scores prompts against concepts, as cosines in [-1, 1].

    Args:
        shape: its sizes.
    """

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.shape, inner = shape, shape.heads * shape.head_width
        self.key, self.value, self.query = (nn.Linear(shape.width, inner) for _ in range(3))
        self.prompt_out, self.concept_out = (nn.Linear(inner, shape.out_width) for _ in range(2))
        self.scale = nn.Parameter(torch.tensor(START_SCALE))

    @classmethod
    def drawn(cls, shape: HeadShape, generator: torch.Generator) -> ConceptHead:
        """Return a head with first weights as torch draws them, but from this generator."""
        with torch.device("meta"):  # where nothing is drawn from the global generator
            head = cls(shape)
        head.to_empty(device="cpu")
        head.scale.data.fill_(START_SCALE)
        for linear in head.children():
            bound = 1 / math.sqrt(linear.in_features)
            for parameter in linear.parameters():
                parameter.data.uniform_(-bound, bound, generator=generator)
        return head

    def forward(self, rows: Tensor, is_row: Tensor, concepts: Tensor) -> Tensor:
        """Return the cosine of every prompt with every concept, (prompts, concepts).

        Args:
            rows: blocks of prompts, (prompts, rows, width), see `padded`.
            is_row: which rows are real, (prompts, rows).
            concepts: summary rows of concepts, (concepts, width).
        """
        key, value = (self._by_head(linear(rows)) for linear in (self.key, self.value))  # (p, n, heads, w)
        query = self._by_head(self.query(concepts))  # (c, heads, w)
        weights = torch.einsum("chw,pnhw->pchn", query, key) / math.sqrt(self.shape.head_width)
        weights = weights.masked_fill(~is_row[:, None, None, :], -math.inf).softmax(dim=-1)
        gathered = torch.einsum("pchn,pnhw->pchw", weights, value).flatten(-2)  # (p, c, heads * w)
        prompt_side = F.normalize(self.prompt_out(gathered), dim=-1)  # (p, c, out)
        concept_side = F.normalize(self.concept_out(query.flatten(-2)), dim=-1)  # (c, out)
        return (prompt_side * concept_side).sum(dim=-1)

    def _by_head(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.shape.heads, self.shape.head_width))


@torch.no_grad()
def score_blocks(head: ConceptHead, blocks: Sequence[Tensor], concepts: Tensor) -> Tensor:
    """Return the cosine of every block with every concept, (blocks, concepts), in parts that fit in memory.

    Args:
        head: the head.
        blocks: of prompts, each (rows, width); at least one.
        concepts: summary rows, (concepts, width).
    """
    parts = [padded(blocks[start : start + _PART]) for start in range(0, len(blocks), _PART)]
    some = concepts.split(_PART)
    return torch.cat([torch.cat([head(*part, group) for group in some], dim=1) for part in parts])


def concept_loss(unsafe: Tensor, safe: Tensor | None) -> Tensor:
    """Return Latent Guard's loss of n concepts, each with one unsafe and one safe prompt.

    Rows: each unsafe prompt must be nearest to its own concept, among all concepts and the highest score of
    every safe prompt. Columns: each concept must be nearest to its own unsafe prompt, among all unsafe and
    safe prompts. Both are cross-entropies and are added.

    Args:
        unsafe: scaled scores of the unsafe prompts, (n prompts, n concepts); the diagonal is right.
        safe: those of the safe prompts, (n, n); None leaves them out.

    Returns:
        Mean over the concepts, a scalar.
    """
    right = torch.arange(len(unsafe), device=unsafe.device)
    rows, columns = unsafe, unsafe.T
    if safe is not None:
        worst = safe.max(dim=1).values  # (n,)
        rows = torch.cat([unsafe, worst.expand(len(unsafe), -1)], dim=1)  # (n, 2n)
        columns = torch.cat([unsafe, safe]).T  # (n, 2n)
    return F.cross_entropy(rows, right) + F.cross_entropy(columns, right)


def head_from(tensors: Mapping[str, Tensor], heads: int, name: str) -> ConceptHead:
    """Return a head with stored weights, frozen.

    Args:
        tensors: its weights by name.
        heads: number of its heads, which the shapes do not tell.
        name: of the file, for errors.

    Raises:
        ValueError: if a weight is missing or misshapen.
    """
    wrong = f"the head in {name} is incomplete or misshapen. Train the guard again, or copy its file again."
    if (
        not _NAMES <= tensors.keys()
        or tensors["key.weight"].ndim != 2
        or tensors["prompt_out.bias"].ndim != 1
    ):
        raise ValueError(wrong)
    inner, width = tensors["key.weight"].shape
    if type(heads) is not int or heads < 1 or inner % heads:
        raise ValueError(wrong)
    shape = HeadShape(width, heads, inner // heads, len(tensors["prompt_out.bias"]))
    if min(shape) < 1:
        raise ValueError(wrong)
    with torch.device("meta"):  # two sizes of a small file can make a head of terabytes
        head = ConceptHead(shape)
    if any(tensors[name].shape != weight.shape for name, weight in head.state_dict().items()):
        raise ValueError(wrong)
    head.load_state_dict({name: tensors[name].float() for name in _NAMES}, assign=True)
    return head.requires_grad_(False).eval()


_LINEARS = ("key", "value", "query", "prompt_out", "concept_out")
_NAMES = {"scale", *(f"{linear}.{kind}" for linear in _LINEARS for kind in ("weight", "bias"))}
