"""Pairs to tensors: every image and prompt is encoded once, kept on disk, and gathered for the trainer."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..conditioning import LATENT_STEP, Conditioning
from ..families.tokenizer import NUM_TOKENS, warn_of_cut
from .entry_store import EntryStore, entry_key
from .image_file import load_image

if TYPE_CHECKING:
    from .safety_pairs import SafetyPairs

DTYPE = torch.float32  # embeddings in fp16 would move the reference errors more than a small beta forgives


@dataclass(frozen=True, eq=False)  # holds tensors, so equality stays identity
class TrainingData:
    """Everything a training run reads: fp32 on the CPU, made of normal (not inference) tensors.

    Attributes:
        winner: latents of the safe images, times the family's latent scale, (pairs, 4, h, w).
        loser: latents of the unsafe images, same shape.
        prompts: each different prompt, encoded, a row each.
        unsafe_prompt: row of `prompts` per pair, (pairs,) int64.
        safe_prompt: likewise.
        empty: the empty prompt, one row.
        neutral: latents of neutral images, (rows, 4, h, w); there may be none.
        neutral_prompt: row of `prompts` per neutral image, (rows,) int64.
        pairs_hash: names the images and prompts behind this, see `SafetyPairs.content_hash`.
        safety_gap: `PreferencePair.safety_gap`, NaN where nobody judged, (pairs,); None likewise for all.
    """

    winner: Tensor
    loser: Tensor
    prompts: Conditioning
    unsafe_prompt: Tensor
    safe_prompt: Tensor
    empty: Conditioning
    neutral: Tensor
    neutral_prompt: Tensor
    pairs_hash: str
    safety_gap: Tensor | None = None

    @property
    def num_pairs(self) -> int:
        """Number of preference pairs."""
        return len(self.winner)

    @property
    def num_neutral(self) -> int:
        """Number of neutral rows, 0 where the source has none."""
        return len(self.neutral)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent, (4, h, w)."""
        return tuple(self.winner.shape[1:])


def encode_pairs(
    pairs: SafetyPairs,
    *,
    encode_image: Callable[[Tensor], Tensor],
    encode_prompt: Callable[[str], Conditioning],
    encoder_id: str,
    resolution: int,
    cache_dir: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> TrainingData:
    """Encode the images and prompts of a source, each different one once.

    Args:
        pairs: what to encode.
        encode_image: takes (1, 3, resolution, resolution) fp32 in [-1, 1], returns the latents as the
            UNet sees them, (1, 4, resolution / 8, resolution / 8).
        encode_prompt: returns one row, (1, 77, width). Of a longer answer (hosts split long prompts) the
            first 77 tokens are used, and a warning counts those prompts.
        encoder_id: names the weights of both encoders; a part of every cache key.
        resolution: side of the square image in pixels, a multiple of 8.
        cache_dir: where encoded entries are kept; None keeps nothing.
        on_progress: called with (done, total) after each item. Whatever it raises stops the pass; what
            was encoded by then is found in the cache next time.

    Raises:
        ValueError: if the resolution is no multiple of 8, an image cannot be read, or an encoder returns
            another shape or values that are not finite.
    """
    if resolution < LATENT_STEP or resolution % LATENT_STEP:
        raise ValueError(f"resolution must be a multiple of {LATENT_STEP} pixels, got {resolution}.")
    files = dict.fromkeys(file for pair in pairs.pairs for file in (pair.winner, pair.loser))
    files |= dict.fromkeys(sample.image for sample in pairs.neutral)
    texts = tuple(dict.fromkeys(("", *pairs.prompts)))

    encoder = _Encoder(encode_image, encode_prompt, encoder_id, resolution, EntryStore(cache_dir))
    report = on_progress or (lambda done, total: None)
    total = len(files) + len(texts)
    latents, embeds = {}, {}
    for file in files:
        latents[file] = encoder.image(file)
        report(len(latents), total)
    for number, text in enumerate(texts, start=1):
        embeds[text] = encoder.prompt(text, f"the encoded prompt {number} of {len(texts)}")
        report(len(latents) + len(embeds), total)
    warn_of_cut(encoder.num_cut)
    with torch.inference_mode(False):  # a host may run us inside; inference tensors cannot be trained on
        return _gather(pairs, latents, embeds)


@dataclass
class _Encoder:
    encode_image: Callable[[Tensor], Tensor]
    encode_prompt: Callable[[str], Conditioning]
    encoder_id: str
    resolution: int
    store: EntryStore
    num_cut: int = 0

    def image(self, file: Path) -> Tensor:
        """Return the latents of an image file, (1, 4, h, w)."""
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        key = self._key("image", content, self.resolution)
        return self.store.get(key, lambda: self._make_image(file))["latents"]

    def prompt(self, text: str, name: str) -> Conditioning:
        """Return a prompt, one row; an error calls it by name, not by its text."""
        return Conditioning(
            **self.store.get(self._key("prompt", text, 0), lambda: self._make_prompt(text, name))
        )

    def _key(self, kind: str, content: str, resolution: int) -> str:
        return entry_key(kind, content, encoder_id=self.encoder_id, resolution=resolution, dtype=DTYPE)

    def _make_image(self, file: Path) -> dict[str, Tensor]:
        side = self.resolution // LATENT_STEP
        with torch.no_grad():
            latents = self.encode_image(load_image(file, self.resolution))
        if latents.shape != (1, 4, side, side):
            raise ValueError(
                f"the encoded {file.name} must have shape (1, 4, {side}, {side}), got "
                f"{tuple(latents.shape)}. Use the VAE of the base model."
            )
        return {"latents": _plain(latents, f"the encoded {file.name}")}

    def _make_prompt(self, text: str, name: str) -> dict[str, Tensor]:
        with torch.no_grad():
            encoded = self.encode_prompt(text)
        embeds = encoded.text_embeds
        if embeds.ndim != 3 or embeds.shape[0] != 1 or embeds.shape[1] < NUM_TOKENS:
            raise ValueError(
                f"an encoded prompt must have shape (1, {NUM_TOKENS}, width), got {tuple(embeds.shape)}. "
                "Use the text encoder of the base model."
            )
        self.num_cut += embeds.shape[1] > NUM_TOKENS
        made = {"text_embeds": embeds[:, :NUM_TOKENS], "pooled": encoded.pooled}
        return {part: _plain(tensor, name) for part, tensor in made.items() if tensor is not None}


def _plain(encoded: Tensor, name: str) -> Tensor:
    """Copy to a normal fp32 tensor on the CPU; refuse NaN and infinity."""
    with torch.inference_mode(False):
        value = encoded.detach().to("cpu", DTYPE, copy=True).contiguous()
    if not bool(value.isfinite().all()):
        raise ValueError(f"{name} has values that are not finite. Use an encoder in bf16 or fp32.")
    return value


def _gather(pairs: SafetyPairs, latents: dict[Path, Tensor], embeds: dict[str, Conditioning]) -> TrainingData:
    row = {text: index for index, text in enumerate(embeds)}  # the empty prompt is one of them
    prompts = Conditioning.concatenate(list(embeds.values()))
    shape = next(iter(latents.values())).shape[1:]
    return TrainingData(
        winner=torch.cat([latents[pair.winner] for pair in pairs.pairs]),
        loser=torch.cat([latents[pair.loser] for pair in pairs.pairs]),
        prompts=prompts,
        unsafe_prompt=torch.tensor([row[pair.unsafe_prompt] for pair in pairs.pairs]),
        safe_prompt=torch.tensor([row[pair.safe_prompt] for pair in pairs.pairs]),
        empty=prompts[torch.tensor([row[""]])],
        neutral=torch.cat([latents[sample.image] for sample in pairs.neutral])
        if pairs.neutral
        else torch.empty(0, *shape),
        neutral_prompt=torch.tensor([row[sample.prompt] for sample in pairs.neutral], dtype=torch.int64),
        pairs_hash=pairs.content_hash,
        safety_gap=torch.tensor(
            [math.nan if pair.safety_gap is None else pair.safety_gap for pair in pairs.pairs]
        ),
    )
