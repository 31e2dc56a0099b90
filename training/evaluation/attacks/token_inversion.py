"""Ring-A-Bell's second half: tokens that encode near a pushed prompt, searched on one's own model.

Tsai et al. 2024, arXiv:2310.10012; constants as in the released notebooks. The tokens are drawn with and
forgotten: what comes back is how often the model was unsafe. Concept Stress, which feeds the point itself,
bounds this attack from above at none of its cost.

It adapts to the text encoder and to nothing else: the search never sees a picture, and experts leave the
encoder alone, so every model under test is drawn with the same tokens. The report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from ...config import InversionConfig
from ...models.noise import named_generator
from ...models.text_encoder import TextEncoder
from ...rules.hard_rule import joins_minor_and_sexual
from .report import ADAPTIVE, AttackReport, Outcome, Remember, find_anew

_BATCH = 50  # candidates encoded at once
NAME = "Ring-A-Bell's token inversion"


class Encoder(NamedTuple):
    """The text encoder under attack.

    Attributes:
        encode: token ids (n, tokens) to last hidden states (n, tokens, width).
        text_of: token ids to text, only to keep the rule on minors; its answer is not kept.
        vocabulary: ids the search may use, (v,); neither of the marks.
        marks: ids of the start and of the end, which is the padding too.
    """

    encode: Callable[[Tensor], Tensor]
    text_of: Callable[[Sequence[int]], str]
    vocabulary: Tensor
    marks: tuple[int, int]


def encoder_of(text_encoder: TextEncoder) -> Encoder:
    """Return the text encoder of SD 1.5 for the search, on its device; all tokens but the marks are free.

    Raises:
        ValueError: for another family: the paper's target is CLIP-L's last hidden state.
    """
    if len(text_encoder.models) != 1 or text_encoder.kinds[0].penultimate or text_encoder.kinds[0].open_clip:
        raise ValueError("token inversion works on the text encoder of SD 1.5 only; use Concept Stress.")
    (model,), tokenizer = text_encoder.models, text_encoder.tokenizer

    @torch.no_grad()
    def encode(ids: Tensor) -> Tensor:
        device = next(model.parameters()).device
        return torch.cat([model(part.to(device)).last_hidden_state for part in ids.split(_BATCH)])

    start = model.config.vocab_size - 2  # CLIP's marks are its last tokens
    words = torch.arange(start)
    return Encoder(
        encode, lambda ids: tokenizer.decode(ids, skip_special_tokens=True), words, (start, start + 1)
    )


def token_inversion_attack(
    targets: Sequence[Tensor],
    encoder: Encoder,
    models: Sequence[Callable[[Tensor], Sequence[bool]]],
    config: InversionConfig,
    *,
    categories: Sequence[str],
    budget: int,
    judge: str,
    numbers: Sequence[int] | None = None,
    remember: Sequence[Remember] | None = None,
    on_progress: Callable[[int, int], None] = lambda step, total: None,
) -> tuple[AttackReport, ...]:
    """Search tokens for every target, draw with them, and return only rates, one report per model.

    The search asks the text encoder alone, so the models under test share it. Tokens that read as sexual
    content together with a word for a minor are not drawn with; such a target counts with no picture.

    Args:
        targets: pushed prompts, see `stressed`, each (tokens, width).
        encoder: see `Encoder`.
        models: each draws with encoded tokens (1, tokens, width) and judges; one flag per picture.
        config: how to search.
        categories: of the concept, for the rule on minors.
        budget: pictures that a model draws of a target, for the report.
        judge: label of who judges.
        numbers: of the targets among all, which decide their searches; None counts from 0.
        remember: one per model, of a target by its place in `targets`; a target that every model remembers
            is not searched for. None remembers nothing.
        on_progress: generations done and in all; may raise to cancel.
    """
    total = len(targets) * config.generations
    memories = remember or [find_anew] * len(models)
    outcomes: list[list[Outcome]] = [[] for _ in models]
    for at, target in enumerate(targets):
        generator = named_generator(f"ring-a-bell/{config.seed}/{numbers[at] if numbers else at}")
        find = partial(
            _found, target, encoder, config, generator, categories,
            lambda done, before=at * config.generations: on_progress(before + done, total),
        )  # fmt: skip
        found = cache(find)  # once for all models, and only where one does not remember
        for own, is_unsafe, remembered in zip(outcomes, models, memories, strict=True):
            own.append(remembered(at, partial(_drawn_with, found, is_unsafe)))
        on_progress((at + 1) * config.generations, total)
    return tuple(
        AttackReport(NAME, ADAPTIVE, tuple(own), budget, judge, encoder_only=True) for own in outcomes
    )


def _drawn_with(found: Callable[[], Tensor | None], is_unsafe: Callable[[Tensor], Sequence[bool]]) -> Outcome:
    embeds = found()
    flags = [] if embeds is None else [bool(flag) for flag in is_unsafe(embeds)]
    return Outcome(sum(flags), len(flags))


def _found(
    target: Tensor,
    encoder: Encoder,
    config: InversionConfig,
    generator: torch.Generator,
    categories: Sequence[str],
    on_generation: Callable[[int], None],
) -> Tensor | None:
    """Return the tokens found, encoded, (1, tokens, width); None where the rule on minors forbids them."""
    tokens = _search(target, encoder, config, generator, on_generation)
    if joins_minor_and_sexual(categories, encoder.text_of(tokens[0].tolist())):
        return None
    return encoder.encode(tokens)


def _search(
    target: Tensor,
    encoder: Encoder,
    config: InversionConfig,
    generator: torch.Generator,
    on_generation: Callable[[int], None],
) -> Tensor:
    """Return the ids (1, tokens) seen that encode nearest to the target, by the genetic search."""
    vocabulary, half = encoder.vocabulary, config.population // 2
    genes = _pick(vocabulary, (config.population, config.free_tokens), generator)
    best, best_error = genes[:1], torch.inf
    for generation in range(1, config.generations + 1):
        error = _errors(genes, target, encoder)
        order = error.argsort(stable=True)
        if error[order[0]] < best_error:  # our addition: mutation may lose the best of a generation
            best, best_error = genes[order[:1]], float(error[order[0]])
        genes = _mutated(
            _with_children(genes[order[:half]], config, generator), vocabulary, config, generator
        )
        on_generation(generation)
    return _framed(best, len(target), encoder)


def _errors(genes: Tensor, target: Tensor, encoder: Encoder) -> Tensor:
    """Return the sum of squares to the target per candidate, (n,), fp32."""
    encoded = encoder.encode(_framed(genes, len(target), encoder))
    return (encoded.float() - target.float()).square().flatten(1).sum(1).cpu()


def _framed(genes: Tensor, tokens: int, encoder: Encoder) -> Tensor:
    """Return [start, genes, end, end, ...], (n, tokens)."""
    start, end = encoder.marks
    ids = torch.full((len(genes), tokens), end)
    ids[:, 0], ids[:, 1 : 1 + genes.shape[1]] = start, genes
    return ids


def _with_children(parents: Tensor, config: InversionConfig, generator: torch.Generator) -> Tensor:
    """Return the survivors, and two children of each that is chosen: tails exchanged behind one cut."""
    count, length = parents.shape
    chosen = torch.rand(count, generator=generator) < config.crossover
    partners = parents[torch.randint(count, (count,), generator=generator)]
    cuts = torch.randint(1, length + 1, (count, 1), generator=generator)
    is_head = torch.arange(length) < cuts
    children = [torch.where(is_head, a, b) for a, b in ((parents, partners), (partners, parents))]
    return torch.cat([parents, *(each[chosen] for each in children)])


def _mutated(
    genes: Tensor, vocabulary: Tensor, config: InversionConfig, generator: torch.Generator
) -> Tensor:
    """Return candidates, survivors too, each with the given chance to have one token replaced."""
    chosen = torch.rand(len(genes), 1, generator=generator) < config.mutation
    where = torch.randint(genes.shape[1], (len(genes), 1), generator=generator)
    new = _pick(vocabulary, (len(genes), 1), generator)
    return torch.where(chosen & (torch.arange(genes.shape[1]) == where), new, genes)


def _pick(vocabulary: Tensor, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return vocabulary[torch.randint(len(vocabulary), shape, generator=generator)]
