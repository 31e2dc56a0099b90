"""Pairs to rows: every picture and prompt is encoded once, and read from the disk by the trainer."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..models.conditioning import LATENT_STEP, Conditioning
from ..models.tokenizer import NUM_TOKENS, warn_of_cut
from ..system.pictures import load_image
from .arrangement import Arrangement, Picture, arrange, bucket_sizes, latent_shape
from .entry_store import Entry, EntryStore, entry_key
from .training_data import LatentRows, PromptRows, TrainingData

if TYPE_CHECKING:
    from .pair import SafetyPairs

DTYPE = torch.float32  # embeddings in fp16 would move the reference errors more than a small beta forgives


def encode_pairs(
    pairs: SafetyPairs,
    *,
    encode_image: Callable[[Tensor], Tensor],
    encode_prompt: Callable[[str], Conditioning],
    encoder_id: str,
    resolution: int,
    mirrored: bool = False,
    bucketed: bool = False,
    cache_dir: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> TrainingData:
    """Encode the pictures and prompts of a source, each different one once.

    Args:
        pairs: what to encode.
        encode_image: takes (1, 3, height, width) fp32 in [-1, 1], returns the latents as the UNet sees
            them, (1, 4, height / 8, width / 8).
        encode_prompt: returns one row, (1, 77, width). Of a longer answer (hosts split long prompts) the
            first 77 tokens are used, and a warning counts those prompts.
        encoder_id: names the weights of both encoders; a part of every cache key.
        resolution: side of the square picture in pixels, a multiple of 8.
        mirrored: encode each picture mirrored, too.
        bucketed: crop each pair to the nearest of `bucket_sizes` instead of to the square.
        cache_dir: where encoded entries are kept, and read from while training; None keeps them in memory.
        on_progress: called with (done, total) after each item. Whatever it raises stops the pass; what
            was encoded by then is found in the cache next time.

    Raises:
        ValueError: if the resolution is no multiple of 8, an image cannot be read, or an encoder returns
            another shape or values that are not finite.
    """
    _check_resolution(resolution)
    with torch.inference_mode(False):  # a host may run us inside; inference tensors cannot be trained on
        rows = arrange(pairs, bucket_sizes(resolution) if bucketed else [(resolution, resolution)])
    pictures = tuple(rows.pictures(mirrored=mirrored))
    texts = tuple(dict.fromkeys(("", *pairs.prompts)))

    encoder = _Encoder(encode_image, encode_prompt, encoder_id, EntryStore(cache_dir))
    report = on_progress or (lambda done, total: None)
    total = len(pictures) + len(texts)
    latents: dict[Picture, Entry] = {}
    embeds: dict[str, Entry] = {}
    for picture in pictures:
        latents[picture] = encoder.image(picture)
        report(len(latents), total)
    for number, text in enumerate(texts, start=1):
        embeds[text] = encoder.prompt(text, f"the encoded prompt {number} of {len(texts)}")
        report(len(latents) + len(embeds), total)
    warn_of_cut(encoder.num_cut)
    with torch.inference_mode(False):
        return _training_data(pairs, rows, latents, embeds, resolution=resolution, mirrored=mirrored)


def encode_pictures(
    pictures: Sequence[Sequence[Path]],
    *,
    encode_image: Callable[[Tensor], Tensor],
    encoder_id: str,
    resolution: int,
    cache_dir: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[list[Tensor]]:
    """Encode the squares of pictures, each different one once; what `encode_pairs` has kept is read.

    Args:
        pictures: files, in groups.
        encode_image: see `encode_pairs`, as for all else.
        encoder_id: see there.
        resolution: see there.
        cache_dir: see there.
        on_progress: called with (done, total) after each picture; what it raises stops the pass.

    Returns:
        Latents of each file, (4, h, w), in the same groups; those of a file are paged in as they are used.

    Raises:
        ValueError: see `encode_pairs`.
    """
    _check_resolution(resolution)
    encoder = _Encoder(encode_image, None, encoder_id, EntryStore(cache_dir))
    files = dict.fromkeys(file for own in pictures for file in own)
    latents: dict[Path, Tensor] = {}
    for file in files:
        latents[file] = encoder.image(Picture(file, (resolution, resolution))).read()["latents"][0]
        if on_progress:
            on_progress(len(latents), len(files))
    return [[latents[file] for file in own] for own in pictures]


def _check_resolution(resolution: int) -> None:
    if resolution < LATENT_STEP or resolution % LATENT_STEP:
        raise ValueError(f"resolution must be a multiple of {LATENT_STEP} pixels, got {resolution}.")


@dataclass
class _Encoder:
    encode_image: Callable[[Tensor], Tensor]
    encode_prompt: Callable[[str], Conditioning] | None  # None where only pictures are encoded
    encoder_id: str
    store: EntryStore
    num_cut: int = 0

    def image(self, picture: Picture) -> Entry:
        """Return the latents of a picture, (1, 4, h, w)."""
        content = hashlib.sha256(picture.file.read_bytes()).hexdigest()
        form = f"{picture.size[0]}x{picture.size[1]}{' mirrored' if picture.mirrored else ''}"
        return self.store.get(self._key("image", content, form), lambda: self._make_image(picture))

    def prompt(self, text: str, name: str) -> Entry:
        """Return a prompt, one row; an error calls it by name, not by its text."""
        return self.store.get(self._key("prompt", text, ""), lambda: self._make_prompt(text, name))

    def _key(self, kind: str, content: str, form: str) -> str:
        return entry_key(kind, content, encoder_id=self.encoder_id, form=form, dtype=DTYPE)

    def _make_image(self, picture: Picture) -> dict[str, Tensor]:
        name, wanted = f"the encoded {picture.file.name}", (1, *latent_shape(picture.size))
        with torch.no_grad():
            latents = self.encode_image(load_image(picture.file, picture.size, mirrored=picture.mirrored))
        if latents.shape != wanted:
            raise ValueError(
                f"{name} must have shape {wanted}, got {tuple(latents.shape)}. Use the VAE of the base model."
            )
        return {"latents": _plain(latents, name)}

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


def _training_data(
    pairs: SafetyPairs,
    rows: Arrangement,
    latents: Mapping[Picture, Entry],
    embeds: Mapping[str, Entry],
    *,
    resolution: int,
    mirrored: bool,
) -> TrainingData:
    def table(pictures: tuple[Picture, ...]) -> LatentRows:
        twins = [picture._replace(mirrored=True) for picture in pictures] if mirrored else []
        return LatentRows([latents[picture] for picture in (*pictures, *twins)])

    def numbers(prompts: Iterable[str]) -> Tensor:
        return torch.tensor([number[text] for text in prompts], dtype=torch.int64)

    number = {text: row for row, text in enumerate(embeds)}  # the empty prompt is one of them
    tables = [table(pictures) for pictures in (rows.winner, rows.loser, rows.neutral)]
    prompts = PromptRows(embeds.values())
    return TrainingData(
        *tables,
        prompts,
        unsafe_prompt=numbers(pair.unsafe_prompt for pair in pairs.pairs),
        safe_prompt=numbers(pair.safe_prompt for pair in pairs.pairs),
        neutral_prompt=numbers(rows.neutral_prompts),
        empty=prompts[numbers([""])],
        buckets=rows.buckets,
        pairs_hash=pairs.content_hash,
        encoding_hash=_joint_hash(entry for part in (*tables, prompts) for entry in part.entries),
        neutral_pair=torch.tensor(rows.neutral_pairs),
        safety_gap=torch.tensor(
            [math.nan if pair.safety_gap is None else pair.safety_gap for pair in pairs.pairs]
        ),
        judged_wrong=torch.tensor([pair.judged_right is False for pair in pairs.pairs]),
        resolution=resolution,
    )


def _joint_hash(entries: Iterable[Entry]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(entry.content_hash.encode())
    return digest.hexdigest()
