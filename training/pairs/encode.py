"""Pairs become training data: each picture and prompt is encoded once, and read from disk while training."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..models.conditioning import LATENT_STEP, Conditioning
from ..models.tokenizer import NUM_TOKENS, warn_of_cut
from ..system.pictures import covering_crop, image_facts, image_tensor
from .arrangement import LATENT_CHANNELS, Arrangement, Picture, arrange, bucket_sizes, latent_shape
from .entry_store import Entry, EntryStore, entry_key
from .everyday import Everyday
from .sentences import with_sentences
from .training_data import LatentRows, PromptRows, TrainingData

if TYPE_CHECKING:
    from .pair import SafetyPairs

DTYPE = torch.float32  # fp16 embeddings would shift the reference errors by more than a small beta tolerates


class Encoders(NamedTuple):
    """The frozen models that turn pictures and prompts into what a UNet reads.

    Attributes:
        image: takes (1, 3, height, width) fp32 in [-1, 1], returns the latents as the network sees them,
            (1, latent_channels, height / latent_step, width / latent_step).
        prompt: returns one row, (1, 77, width). Of a longer result (hosts split long prompts) the first 77
            tokens are used, and a warning counts those prompts.
        id: identifies the weights of both encoders; part of every cache key.
        latent_channels: number of channels of a latent.
        takes_any_length: whether prompts may have any number of tokens, and are never cut.
        latent_step: pixels per latent, in height and width.
    """

    image: Callable[[Tensor], Tensor]
    prompt: Callable[[str], Conditioning]
    id: str
    latent_channels: int = LATENT_CHANNELS
    takes_any_length: bool = False
    latent_step: int = LATENT_STEP


def encode_pairs(
    pairs: SafetyPairs,
    encoders: Encoders,
    *,
    resolution: int,
    mirrored: bool = False,
    bucketed: bool = False,
    everyday: Everyday | None = None,
    cache_dir: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> TrainingData:
    """Encode the pictures and prompts of a source, each different one once.

    Args:
        pairs: what to encode.
        encoders: of the base model.
        resolution: side of the square picture in pixels, a multiple of `latent_step`.
        mirrored: encode each picture mirrored, too.
        bucketed: crop each pair to the nearest of `bucket_sizes` instead of to the square.
        everyday: prompts that training may keep, and those that are only measured; as many sentences of
            the pairs are added, see `with_sentences`. None: none.
        cache_dir: where encoded entries are kept, and read from while training; None keeps them in memory.
        on_progress: called with (done, total) after each item. Whatever it raises stops the pass; the items
            encoded so far are found in the cache next time.

    Raises:
        ValueError: if the resolution is no multiple of `latent_step`, an image cannot be read, or an encoder
            returns another shape or values that are not finite.
    """
    _check_resolution(resolution, encoders.latent_step)
    with torch.inference_mode(False):  # a host may call from inside; inference tensors cannot be trained on
        sizes = bucket_sizes(resolution, encoders.latent_step) if bucketed else [(resolution, resolution)]
        rows = arrange(pairs, sizes, encoders.latent_channels, encoders.latent_step)
    pictures = rows.pictures()
    whole = everyday or Everyday()
    everyday = with_sentences(whole, pairs.prompt_pairs)
    sentences = everyday.kept[len(whole.kept) :]
    texts = tuple(dict.fromkeys(("", *pairs.prompts, *everyday.kept, *everyday.measured)))

    work = _Encoding(encoders, EntryStore(cache_dir))
    report = on_progress or (lambda done, total: None)
    total = len(pictures) * (1 + mirrored) + len(texts)
    latents: dict[Picture, Entry] = {}
    embeds: dict[str, Entry] = {}
    for picture in pictures:
        for version, entry in work.images(picture, mirrored=mirrored):
            latents[version] = entry
            report(len(latents), total)
    for number, text in enumerate(texts, start=1):
        embeds[text] = work.prompt(text, f"the encoded prompt {number} of {len(texts)}")
        report(len(latents) + len(embeds), total)
    warn_of_cut(work.num_cut)
    with torch.inference_mode(False):
        return _training_data(
            pairs,
            rows,
            _Encoded(latents, embeds, everyday, sentences),
            resolution=resolution,
            mirrored=mirrored,
        )


def encode_pictures(
    pictures: Sequence[Sequence[Path]],
    encoders: Encoders,
    *,
    resolution: int,
    cache_dir: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[list[Tensor]]:
    """Encode pictures cropped to the square, each different one once; entries of `encode_pairs` are reused.

    Args:
        pictures: files, in groups.
        encoders: of the base model; only pictures are encoded.
        resolution: side of the square in pixels, a multiple of `latent_step`.
        cache_dir: where encoded entries are kept; None keeps them in memory.
        on_progress: called with (done, total) after each picture; whatever it raises stops the pass.

    Returns:
        Latents of each file, (4, h, w), in the same groups; those of a file are paged in as they are used.

    Raises:
        ValueError: if the resolution is no multiple of `latent_step`, an image cannot be read, or the encoder
            returns another shape or values that are not finite.
    """
    _check_resolution(resolution, encoders.latent_step)
    work = _Encoding(encoders, EntryStore(cache_dir))
    files = dict.fromkeys(file for group in pictures for file in group)
    latents: dict[Path, Tensor] = {}
    for file in files:
        ((_, entry),) = work.images(Picture(file, (resolution, resolution)), mirrored=False)
        latents[file] = entry.read()["latents"][0]
        if on_progress:
            on_progress(len(latents), len(files))
    return [[latents[file] for file in group] for group in pictures]


def _check_resolution(resolution: int, step: int) -> None:
    if resolution < step or resolution % step:
        raise ValueError(f"resolution must be a multiple of {step} pixels, got {resolution}.")


@dataclass
class _Encoding:
    """One pass of the encoders over pictures and prompts, through the cache."""

    encoders: Encoders
    store: EntryStore
    num_cut: int = 0  # prompts of more than 77 tokens

    def images(self, picture: Picture, *, mirrored: bool) -> Iterator[tuple[Picture, Entry]]:
        """Yield a picture with its latents (1, 4, h, w), then the mirrored one where wanted.

        The file is decoded at most once, and only if an entry is missing.
        """
        facts = image_facts(picture.file)
        content = " ".join((facts.digest.hex(), *facts.remarks))  # so that another rule is another entry
        crop = functools.cache(lambda: covering_crop(picture.file, picture.size))

        def make(version: Picture) -> dict[str, Tensor]:
            return self._image(image_tensor(crop(), mirrored=version.mirrored), version)

        for version in (picture, picture._replace(mirrored=True)) if mirrored else (picture,):
            key = self._key("image", content, version.form)
            yield version, self.store.get(key, functools.partial(make, version))

    def prompt(self, text: str, name: str) -> Entry:
        """Return an encoded prompt, one row; an error shows `name`, not the text."""
        return self.store.get(self._key("prompt", text, ""), lambda: self._prompt(text, name))

    def _key(self, kind: str, content: str, form: str) -> str:
        return entry_key(kind, content, encoder_id=self.encoders.id, form=form, dtype=DTYPE)

    def _image(self, pixels: Tensor, picture: Picture) -> dict[str, Tensor]:
        name = f"the encoded {picture.file.name}"
        expected = (1, *latent_shape(picture.size, self.encoders.latent_channels, self.encoders.latent_step))
        with torch.no_grad():
            latents = self.encoders.image(pixels)
        if latents.shape != expected:
            raise ValueError(
                f"{name} must have shape {expected}, got {tuple(latents.shape)}. "
                "Use the VAE of the base model."
            )
        return {"latents": _plain(latents, name)}

    def _prompt(self, text: str, name: str) -> dict[str, Tensor]:
        with torch.no_grad():
            encoded = self.encoders.prompt(text)
        embeds, is_whole = encoded.text_embeds, self.encoders.takes_any_length
        if embeds.ndim != 3 or embeds.shape[0] != 1 or embeds.shape[1] < (1 if is_whole else NUM_TOKENS):
            raise ValueError(
                f"an encoded prompt must have shape (1, {'tokens' if is_whole else NUM_TOKENS}, width), got "
                f"{tuple(embeds.shape)}. Use the text encoder of the base model."
            )
        if not is_whole:
            self.num_cut += embeds.shape[1] > NUM_TOKENS
            embeds = embeds[:, :NUM_TOKENS]
        parts = {"text_embeds": embeds, "pooled": encoded.pooled}
        return {part: _plain(tensor, name) for part, tensor in parts.items() if tensor is not None}


def _plain(encoded: Tensor, name: str) -> Tensor:
    """Copy to an ordinary fp32 tensor on the CPU; refuse NaN and infinity."""
    with torch.inference_mode(False):
        value = encoded.detach().to("cpu", DTYPE, copy=True).contiguous()
    if not bool(value.isfinite().all()):
        half = encoded.dtype == torch.float16
        advice = "Use an encoder in bf16 or fp32" if half else "The encoder is damaged; use another one"
        raise ValueError(f"{name} has values that are not finite. {advice}.")
    return value


class _Encoded(NamedTuple):
    """The cache entries of a pass; the empty prompt is one of the prompts, the sentences are kept ones."""

    latents: Mapping[Picture, Entry]
    embeds: Mapping[str, Entry]
    everyday: Everyday
    sentences: tuple[str, ...]


def _training_data(
    pairs: SafetyPairs, rows: Arrangement, encoded: _Encoded, *, resolution: int, mirrored: bool
) -> TrainingData:
    def table(pictures: tuple[Picture, ...]) -> LatentRows:
        twins = [picture._replace(mirrored=True) for picture in pictures] if mirrored else []
        return LatentRows([encoded.latents[picture] for picture in (*pictures, *twins)])

    def numbers(prompts: Iterable[str]) -> Tensor:
        return torch.tensor([number[text] for text in prompts], dtype=torch.int64)

    number = {text: row for row, text in enumerate(encoded.embeds)}
    tables = [table(pictures) for pictures in (rows.winner, rows.loser, rows.neutral)]
    prompts = PromptRows(encoded.embeds.values())
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
        safety_gap=_or_nan(pair.safety_gap for pair in pairs.pairs),
        judged_wrong=torch.tensor([pair.judged_right is False for pair in pairs.pairs]),
        resolution=resolution,
        everyday_prompt=numbers(encoded.everyday.kept),
        measured_prompt=numbers(encoded.everyday.measured),
        sentence_prompt=numbers(encoded.sentences),
        cost_gap=_or_nan(pair.cost_gap for pair in pairs.pairs),
        quality_gap=_or_nan(pair.quality_gap for pair in pairs.pairs),
    )


def _or_nan(values: Iterable[float | None]) -> Tensor:
    return torch.tensor([math.nan if value is None else value for value in values])


def _joint_hash(entries: Iterable[Entry]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(entry.content_hash.encode())
    return digest.hexdigest()
