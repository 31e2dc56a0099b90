"""Draw with the mini flow: prompts as hosts encode them for SD 3 with CLIP-L alone, and Euler steps."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ...models.conditioning import Conditioning
from ...models.noise import NUM_TIMESTEPS
from ...models.tokenizer import NUM_TOKENS, load_tokenizer, token_ids
from ..pairs import BATCH, Draw
from ..scenes import GUIDANCE, STEPS
from ..text_encoder import load_text_encoder
from . import CHANNELS, REPEATS, SHIFT

SIDE = 8  # of a latent


@torch.no_grad()
def encode(
    prompts: Sequence[str],
    on_progress: Callable[[int, int], None] | None = None,
    num_tokens: int = NUM_TOKENS,
) -> Conditioning:
    """Return prompts as SD 3 reads CLIP-L, without the zeros for its other encoders.

    Args:
        prompts: what to encode.
        on_progress: called with the number of encoded prompts and of all.
        num_tokens: how many tokens are encoded, at least up to the end mark; the others are padding.

    Returns:
        The states before the last layer, (n, num_tokens, 768), and the normalised last state of the end
        mark, (n, 768).
    """
    model, ids, parts = load_text_encoder(), token_ids(prompts, load_tokenizer())[:, :num_tokens], []
    for part in ids.split(16):
        encoded = model(part, output_hidden_states=True)
        parts.append(Conditioning(encoded.hidden_states[-2], encoded.pooler_output))
        if on_progress:
            on_progress(sum(map(len, parts)), len(ids))
    return Conditioning.concatenate(parts)


def shifted(even: Tensor) -> Tensor:
    """Return the noise levels in [0, 1] that SD 3 sets for even ones (arXiv:2403.03206, equation 23)."""
    return SHIFT * even / (1 + (SHIFT - 1) * even)


def predict(transformer, noisy: Tensor, sigmas: Tensor, prompts: Conditioning) -> Tensor:
    """Return the velocity, noise minus latents, (batch, 16, 8, 8); `sigmas` are (batch,) in [0, 1]."""
    return transformer(
        noisy,
        encoder_hidden_states=prompts.text_embeds,
        pooled_projections=prompts.pooled,
        timestep=NUM_TIMESTEPS * sigmas,
    ).sample


@torch.no_grad()
def sample(transformer, prompts: Conditioning, empty: Conditioning, seeds: Sequence[int]) -> Tensor:
    """Return one latent per prompt and seed, (batch, 16, 8, 8), as the transformer sees them.

    Args:
        transformer: the mini transformer.
        prompts: encoded prompts.
        empty: the encoded empty prompt, one row.
        seeds: of the starting noise of each picture; equal seeds give equal layouts.
    """
    latents = torch.stack(
        [torch.randn(CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )
    both = Conditioning.concatenate([empty[[0] * len(prompts)], prompts])
    sigmas = shifted(torch.linspace(1, 0, STEPS + 1))
    for sigma, following in zip(sigmas, sigmas[1:], strict=False):
        velocity = predict(transformer, latents.repeat(2, 1, 1, 1), sigma.expand(len(both)), both)
        plain, guided = velocity.chunk(2)
        latents = latents + (following - sigma) * (plain + GUIDANCE * (guided - plain))
    return latents


def make_draw(transformer, autoencoder, prompts: Mapping[str, Conditioning]) -> Draw:
    """Return a function from prompts and seeds to pictures.

    Args:
        transformer: the mini transformer.
        autoencoder: the small world's, diffusers AutoencoderTiny.
        prompts: one row for every prompt that will be drawn and for the empty prompt.
    """

    @torch.no_grad()
    def draw(wanted: Sequence[str], seeds: Sequence[int]) -> Tensor:
        parts = []
        for start in range(0, len(wanted), BATCH):
            rows = Conditioning.concatenate([prompts[prompt] for prompt in wanted[start : start + BATCH]])
            latents = sample(transformer, rows, prompts[""], seeds[start : start + BATCH])
            narrow = latents.unflatten(1, (-1, REPEATS)).mean(2)
            parts.append(autoencoder.decode(narrow).sample.clamp(-1, 1))
        return torch.cat(parts)

    return draw
