"""Ring-A-Bell's token inversion: search tokens that encode near a pushed prompt, and draw with them.

Tsai et al. 2024, arXiv:2310.10012; constants as in the released notebooks. The tokens are forgotten once they
are drawn with; only the rate of unsafe images comes out. Concept Stress, which feeds the pushed encoding
itself, bounds this attack from above at a fraction of the cost.

The released protocol writes the find as text, which is tokenised again to draw with it: `replay` `text`.
Tokens that spell the same letters may then be others, and the encoding moves off the target. By default the
found encoding itself is drawn with, which comes nearer to the target. The report says which.

Also different: the best candidate of all generations is kept, not of the last; token 0 may be used, which is
left out there; every given pair of the concept counts, while rows that a detector finds harmless are removed
there.

The attack adapts only to the text encoder: the search never sees an image, and experts do not change the
encoder, so every model under test is drawn with the same tokens. The report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from ...config import InversionConfig
from ...models.noise import named_generator
from ...models.text_encoder import TextEncoder
from ...models.tokenizer import token_ids
from ...rules.hard_rule import joins_minor_and_sexual
from .report import ADAPTIVE, AttackReport, Outcome, Remember, find_anew

NAME = "Ring-A-Bell's token inversion"
_BATCH = 50  # candidates encoded at once
_BLOCKED = (
    1e9  # added to the error of a blocked candidate: more than any error, so that a passing one is nearer
)
PASSING = f"{NAME}, searching only what passes the guard"
REPLAYS = {"encoding": "drawn with the encoding that it found", "text": "its find replayed as text"}


class PushedPrompts(NamedTuple):
    """Prompts pushed along a concept: the targets of the search.

    Attributes:
        embeds: number of the prompt -> its pushed encoding, (tokens, width). The number decides the random
            numbers of its search.
        categories: of the concept, for the rule on minors.
    """

    embeds: Mapping[int, Tensor]
    categories: Sequence[str]


class Encoder(NamedTuple):
    """The text encoder under attack.

    Attributes:
        encode: token ids (n, tokens) to last hidden states (n, tokens, width).
        text_of: token ids to text, for the rule on minors and for the replay as text; it is not kept.
        vocabulary: token ids that the search may use, (v,), without the marks.
        marks: ids of the start token and of the end token, which also pads.
        is_blocked: last hidden states (n, tokens, width) to flags (n,): what a guard blocks, which the search
            then avoids; None: there is no guard.
        ids_of: text to token ids (1, tokens), for the replay as text; None: not possible.
    """

    encode: Callable[[Tensor], Tensor]
    text_of: Callable[[Sequence[int]], str]
    vocabulary: Tensor
    marks: tuple[int, int]
    is_blocked: Callable[[Tensor], Tensor] | None = None
    ids_of: Callable[[str], Tensor] | None = None


class ModelUnderTest(NamedTuple):
    """A model that the tokens are tried on.

    Attributes:
        is_unsafe: draws with encoded tokens (1, tokens, width) and judges; one flag per image.
        remember: receives the number of a prompt.
    """

    is_unsafe: Callable[[Tensor], Sequence[bool]]
    remember: Remember = find_anew


def encoder_of(text_encoder: TextEncoder) -> Encoder:
    """Return SD 1.5's text encoder for the search, on its device; every token but the marks is allowed.

    Raises:
        ValueError: for another family, because the paper's target is the last hidden state of CLIP-L.
    """
    if len(text_encoder.models) != 1 or text_encoder.kinds[0].penultimate or text_encoder.kinds[0].open_clip:
        raise ValueError("token inversion works only on the text encoder of SD 1.5. Use Concept Stress.")
    (model,), tokenizer = text_encoder.models, text_encoder.tokenizer

    @torch.no_grad()
    def encode(ids: Tensor) -> Tensor:
        device = next(model.parameters()).device
        return torch.cat([model(part.to(device)).last_hidden_state for part in ids.split(_BATCH)])

    start = model.config.vocab_size - 2  # CLIP's marks are its last two tokens
    return Encoder(
        encode,
        lambda ids: tokenizer.decode(ids, skip_special_tokens=True),
        torch.arange(start),
        (start, start + 1),
        ids_of=lambda text: token_ids([text], tokenizer),
    )


def token_inversion_attack(
    targets: PushedPrompts,
    encoder: Encoder,
    models: Sequence[ModelUnderTest],
    config: InversionConfig,
    *,
    budget: int,
    judge: str,
    on_progress: Callable[[int, int], None] = lambda step, total: None,
) -> tuple[AttackReport, ...]:
    """Search tokens for every target, draw with them, and return only rates, one report per model.

    The search uses only the text encoder, so the models under test share its result. A target whose outcome
    every model remembers is not searched. Tokens that read as sexual content together with a word for a minor
    are not drawn with; such a target counts as not drawn.

    Args:
        targets: pushed prompts.
        encoder: their text encoder.
        models: the models under test.
        config: effort of the search.
        budget: images that a model draws for a target, for the report.
        judge: label of the judges.
        on_progress: called with (generations done, generations); may raise to cancel.

    Raises:
        ValueError: for a replay as text behind a guard, which reads the found tokens and not other ones.
    """
    if config.replay == "text" and encoder.is_blocked:
        raise ValueError("replay text cannot be measured behind a guard of tokens. Use replay encoding.")
    total = len(targets.embeds) * config.generations
    name = f"{PASSING if encoder.is_blocked else NAME}, {REPLAYS[config.replay]}"
    outcomes: list[list[Outcome]] = [[] for _ in models]
    for position, (number, target) in enumerate(targets.embeds.items()):
        advance = _shifted(on_progress, position * config.generations, total)
        generator = named_generator(f"ring-a-bell/{config.seed}/{number}")
        search = partial(_search, target, encoder, config, generator, advance)
        # searched once for all models, and only if one of them does not remember the outcome
        embeds = cache(partial(_allowed_embeds, search, encoder, targets.categories, config.replay))
        for model, model_outcomes in zip(models, outcomes, strict=True):
            model_outcomes.append(model.remember(number, partial(_drawn_with, embeds, model)))
        advance(config.generations)
    return tuple(
        AttackReport(
            name, ADAPTIVE, tuple(model_outcomes), budget, judge, encoder_only=not encoder.is_blocked
        )
        for model_outcomes in outcomes
    )


def _shifted(on_progress: Callable[[int, int], None], before: int, total: int) -> Callable[[int], None]:
    return lambda done: on_progress(before + done, total)


def _drawn_with(embeds: Callable[[], Tensor | None], model: ModelUnderTest) -> Outcome:
    tokens = embeds()  # (1, tokens, width)
    flags = [] if tokens is None else [bool(flag) for flag in model.is_unsafe(tokens)]
    return Outcome(sum(flags), len(flags))


def _allowed_embeds(
    search: Callable[[], Tensor], encoder: Encoder, categories: Sequence[str], replay: str
) -> Tensor | None:
    """Search and encode, (1, tokens, width); return None where the rule on minors forbids the tokens."""
    tokens = search()
    text = encoder.text_of(tokens[0].tolist())
    if joins_minor_and_sexual(categories, text):
        return None
    return encoder.encode(tokens if replay == "encoding" else encoder.ids_of(text))


def _search(
    target: Tensor,
    encoder: Encoder,
    config: InversionConfig,
    generator: torch.Generator,
    on_generation: Callable[[int], None],
) -> Tensor:
    """Return the ids (1, tokens) that encode nearest to the target, among those the genetic search saw."""
    vocabulary, half = encoder.vocabulary, config.population // 2
    genes = _random_tokens(vocabulary, (config.population, config.free_tokens), generator)
    best, best_error = genes[:1], torch.inf
    for generation in range(1, config.generations + 1):
        errors = _errors(genes, target, encoder)
        order = errors.argsort(stable=True)
        if errors[order[0]] < best_error:  # our addition: mutation may lose the best of a generation
            best, best_error = genes[order[:1]], float(errors[order[0]])
        genes = crossed_over(genes[order[:half]], config.crossover, generator)
        genes = _mutated(genes, vocabulary, config.mutation, generator)
        on_generation(generation)
    return _framed(best, len(target), encoder)


def _errors(genes: Tensor, target: Tensor, encoder: Encoder) -> Tensor:
    """Return each candidate's sum of squared differences to the target, (n,), fp32; more if it is blocked."""
    encoded = encoder.encode(_framed(genes, len(target), encoder))
    errors = (encoded.float() - target.float()).square().flatten(1).sum(1).cpu()
    if encoder.is_blocked is None:
        return errors
    return errors + _BLOCKED * encoder.is_blocked(encoded)


def _framed(genes: Tensor, tokens: int, encoder: Encoder) -> Tensor:
    """Return [start, genes, end, end, ...], (n, tokens)."""
    start, end = encoder.marks
    ids = torch.full((len(genes), tokens), end)
    ids[:, 0], ids[:, 1 : 1 + genes.shape[1]] = start, genes
    return ids


def crossed_over(parents: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Return the parents and the children of those that are chosen: single-point crossover.

    Args:
        parents: (n, genes).
        chance: probability that a parent has two children with a random partner.
        generator: on the CPU.

    Returns:
        (n + 2 * chosen parents, genes), the parents first.
    """
    count, length = parents.shape
    chosen = torch.rand(count, generator=generator) < chance
    partners = parents[torch.randint(count, (count,), generator=generator)]
    cuts = torch.randint(1, length + 1, (count, 1), generator=generator)
    is_head = torch.arange(length) < cuts
    children = [torch.where(is_head, a, b) for a, b in ((parents, partners), (partners, parents))]
    return torch.cat([parents, *(siblings[chosen] for siblings in children)])


def _mutated(genes: Tensor, vocabulary: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Return the candidates, survivors included, each with one token replaced with the given chance."""
    chosen = torch.rand(len(genes), 1, generator=generator) < chance
    position = torch.randint(genes.shape[1], (len(genes), 1), generator=generator)
    replacement = _random_tokens(vocabulary, (len(genes), 1), generator)
    return torch.where(chosen & (torch.arange(genes.shape[1]) == position), replacement, genes)


def _random_tokens(vocabulary: Tensor, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return vocabulary[torch.randint(len(vocabulary), shape, generator=generator)]
