"""The safety cost model: how harmful a picture is, read off a frozen image embedding.

    h = gelu(Linear(LayerNorm(f))),  cost = Linear(h),  cost > 0: unsafe

f is the normalised embedding of the picture. After the idea of the safety cost model of SC-DPO (Ruan et al.
2025, arXiv:2504.14290), of which only the abstract was available to us: the shape of the head, its losses
(`train_cost`) and its numbers are our choice.

A model is several heads, each trained without one part of the pairs. A picture that is among the pairs is
scored by the head that never saw it, any other by the mean of the heads, so that a model never confirms the
labels that it learned from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.noise import named_generator
from ..rules.categories import normalize_categories
from ..system.tables import parse_json
from ..system.tensors import LazyTensors, check_finite, open_tensors, write_tensors
from .judge import Embed

CLIP_VISION, VAE = "clip_vision", "vae"  # kinds of embeddings
HIDDEN, PROJECTED = 256, 128  # widths of the head
POOLED = 8  # latents are pooled to so many rows and columns
MOST_FOLDS = 20
_MOST_PIXELS = 512  # side of the largest square that the VAE encodes; its latents are pooled anyway
_STEP = 8  # pixels to a latent
_PROBES, _PROBE_SIDE = 2, 256
_MOST_DEVIATION = (
    0.05  # of a probe's embedding: half precision and resizing differ by less, other models more
)
_MOST_WIDTH = 1 << 16
_PREFIX, _VERSION, _KIND = "alignguard.", "1", "safety_cost"
_TRAIN = "Train it with Train Safety Cost or `judge train`."


class ImageEncoder(NamedTuple):
    """A frozen model that turns pictures into vectors.

    Attributes:
        kind: `clip_vision` or `vae`.
        embed: images (n, 3, h, w) in [0, 1] to embeddings (n, width).
    """

    kind: str
    embed: Embed

    def normalised(self, images: Tensor) -> Tensor:
        """Return embeddings of length 1, (n, width) fp32 on the CPU; images (n, 3, h, w) in [0, 1].

        Raises:
            ValueError: if an embedding is not finite.
        """
        embeds = self.embed(images).detach().to("cpu", torch.float32)
        check_finite(
            embeds, f"the {self.kind} embedding of a picture", "The encoder is damaged; use another."
        )
        return F.normalize(embeds, dim=1)


def latent_encoder(encode: Callable[[Tensor], Tensor]) -> ImageEncoder:
    """Return the encoder that reads the latents of a VAE, pooled to 8 x 8 (our choice): no further model.

    Args:
        encode: images (n, 3, h, w) in [0, 1], sides multiples of 8, to latents (n, channels, h / 8, w / 8).
    """

    def embed(images: Tensor) -> Tensor:
        latents = encode(_square(images)).detach().to("cpu", torch.float32)
        return F.adaptive_avg_pool2d(latents, POOLED).flatten(1)  # (n, channels * 64)

    return ImageEncoder(VAE, embed)


def _square(images: Tensor) -> Tensor:
    """Return the centres of images as squares that a VAE takes, at most 512 pixels wide."""
    side = min(images.shape[-2:])
    top, left = ((length - side) // 2 for length in images.shape[-2:])
    squares = images[:, :, top : top + side, left : left + side]
    wanted = max(min(side, _MOST_PIXELS) // _STEP, POOLED) * _STEP
    if wanted == side:
        return squares
    return F.interpolate(squares, (wanted, wanted), mode="bilinear", antialias=True).clamp(0, 1)


class CostHead(nn.Module):
    """The trained part of a cost model.

    Args:
        width: of the embeddings.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(width), nn.Linear(width, HIDDEN)
        self.cost, self.project = nn.Linear(HIDDEN, 1), nn.Linear(HIDDEN, PROJECTED)

    @classmethod
    def drawn(cls, width: int, generator: torch.Generator) -> CostHead:
        """Return a head with first weights as torch draws them, but from this generator."""
        with torch.device("meta"):  # where nothing is drawn from the global generator
            head = cls(width)
        head.to_empty(device="cpu")
        head.norm.reset_parameters()  # ones and zeros
        for linear in (head.inner, head.cost, head.project):
            bound = linear.in_features**-0.5
            for parameter in linear.parameters():
                parameter.data.uniform_(-bound, bound, generator=generator)
        return head

    def forward(self, embeds: Tensor) -> tuple[Tensor, Tensor]:
        """Return costs (n,) and normalised projections (n, 128) of embeddings (n, width)."""
        hidden = F.gelu(self.inner(self.norm(embeds)))
        return self.cost(hidden)[:, 0], F.normalize(self.project(hidden), dim=1)


@dataclass(frozen=True, eq=False, repr=False)
class CostModel:
    """Trained heads, bound to the encoder that they read.

    Args:
        heads: one per fold, at least one.
        encoder: turns pictures into embeddings.
        categories: of the pairs that it was trained on.
        folds: digest of each picture that it was trained on -> number of the head that did not see it.
        facts: everything else that the file holds, such as options and held-out figures.
    """

    heads: tuple[CostHead, ...]
    encoder: ImageEncoder
    categories: tuple[str, ...]
    folds: Mapping[str, int]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"CostModel({self.encoder.kind}, {len(self.heads)} heads)"  # a host writes it into its history

    @torch.no_grad()
    def costs(self, images: Tensor) -> Tensor:
        """Return the costs of pictures (n, 3, h, w) in [0, 1]: (n,) fp32, above 0 is unsafe."""
        embeds = self.encoder.normalised(images)
        costs = self.of_embeddings(embeds)  # (heads, n)
        folds = [self.folds.get(picture_digest(image)) for image in images]
        mean = costs.mean(dim=0)
        return torch.stack([mean[at] if fold is None else costs[fold, at] for at, fold in enumerate(folds)])

    @torch.no_grad()
    def of_embeddings(self, embeds: Tensor) -> Tensor:
        """Return the cost by every head of normalised embeddings (n, width): (heads, n)."""
        return torch.stack([head(embeds)[0] for head in self.heads])

    def id(self) -> str:
        """Return 8 hexadecimal digits that identify the weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self._weights().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().contiguous().numpy())
        return digest.hexdigest()[:8]

    def write(self, path: Path) -> Path:
        """Write the model under a temporary name and rename it; an existing file is never replaced.

        Raises:
            FileExistsError: if the file exists.
        """
        facts = {**self.facts, "categories": list(self.categories), "folds": dict(self.folds)}
        metadata = {name: json.dumps(value) for name, value in facts.items()}
        metadata |= {"version": _VERSION, "kind": _KIND, "encoder": self.encoder.kind}
        tensors = {**self._weights(), "probes": self.encoder.normalised(_probes())}
        return write_tensors(path, tensors, {f"{_PREFIX}{name}": text for name, text in metadata.items()})

    def _weights(self) -> dict[str, Tensor]:
        return {
            f"{number}.{name}": tensor
            for number, head in enumerate(self.heads)
            for name, tensor in head.state_dict().items()
        }


def read_cost_model(path: Path, encoders: Mapping[str, ImageEncoder | None]) -> CostModel:
    """Read a cost model and bind it to the encoder that it was trained on.

    The file holds what that encoder makes of two drawn patterns. An encoder that makes something else of
    them is refused, because the scores would be wrong without looking so.

    Args:
        path: the .safetensors file.
        encoders: kind -> encoder; None: not at hand.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is a pickle, damaged, another kind of file, or was trained on another encoder.
    """
    with open_tensors(path) as opened:
        kind, metadata = _metadata(opened, path.name)
        tensors = {name: opened[name] for name in opened}
    damaged = f"{path.name} is damaged. Copy it again, or train the model again."
    try:
        facts = {name: parse_json(text) for name, text in metadata.items()}
        categories = normalize_categories(facts.pop("categories"))
        folds = facts.pop("folds")
        probes = tensors.pop("probes").float()
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(damaged) from error
    heads = _heads(tensors, probes, damaged)
    if not categories or not _are_folds(folds, len(heads)):
        raise ValueError(damaged)
    encoder = encoders.get(kind)
    if encoder is None:
        raise ValueError(_no_encoder(path.name, kind))
    _check_encoder(path.name, encoder, probes)
    return CostModel(heads, encoder, categories, folds, facts)


def picture_digest(image: Tensor) -> str:
    """Return 16 hexadecimal digits of the 8-bit pixels of a picture (3, h, w) in [0, 1]."""
    pixels = (image.detach().to("cpu", torch.float32) * 255).round().byte().contiguous()
    return hashlib.sha256(str(tuple(pixels.shape)).encode() + pixels.numpy().tobytes()).hexdigest()[:16]


def _metadata(opened: LazyTensors, name: str) -> tuple[str, dict[str, str]]:
    """Return the kind of the encoder and the other metadata, before any tensor is read."""
    texts = {
        key.removeprefix(_PREFIX): text for key, text in opened.metadata.items() if key.startswith(_PREFIX)
    }
    if texts.pop("kind", "") != _KIND:
        raise ValueError(f"{name} is not a safety cost model. {_TRAIN}")
    if texts.pop("version", "") != _VERSION:
        raise ValueError(f"{name} was made by another version of this pack. Update it, or train anew.")
    return texts.pop("encoder", ""), texts


def _heads(tensors: Mapping[str, Tensor], probes: Tensor, damaged: str) -> tuple[CostHead, ...]:
    with torch.device("meta"):
        names = CostHead(1).state_dict()
    count, left = divmod(len(tensors), len(names))
    fits = probes.ndim == 2 and len(probes) == _PROBES and 0 < probes.shape[1] <= _MOST_WIDTH
    if left or not 0 < count <= MOST_FOLDS or not fits:
        raise ValueError(damaged)
    for name, tensor in [*tensors.items(), ("probes", probes)]:
        check_finite(tensor.float(), name, damaged)
    heads = []
    for number in range(count):
        with torch.device("meta"):
            head = CostHead(probes.shape[1])
        shapes = {name: weight.shape for name, weight in head.state_dict().items()}
        state = {name: tensors.get(f"{number}.{name}") for name in shapes}
        if any(weight is None or weight.shape != shapes[name] for name, weight in state.items()):
            raise ValueError(damaged)
        head.load_state_dict({name: weight.float() for name, weight in state.items()}, assign=True)
        heads.append(head.requires_grad_(False).eval())
    return tuple(heads)


def _are_folds(folds: Any, count: int) -> bool:
    return isinstance(folds, dict) and all(type(fold) is int and 0 <= fold < count for fold in folds.values())


def _no_encoder(name: str, kind: str) -> str:
    if kind == VAE:
        return (
            f"{name} reads the latents of a VAE, and there is none here. Connect the VAE that it was trained "
            "on to vae; on the command line, give its checkpoint with --base."
        )
    if kind == CLIP_VISION:
        return (
            f"{name} reads CLIP image embeddings. Connect the CLIP Vision that it was trained on to "
            "clip_vision; on the command line, give --clip-vision DIR."
        )
    return f"{name} reads an unknown kind of embedding, {kind!r}. {_TRAIN}"


def _check_encoder(name: str, encoder: ImageEncoder, probes: Tensor) -> None:
    here = encoder.normalised(_probes())
    is_same = here.shape == probes.shape and bool(
        ((here - probes).norm(dim=1) <= _MOST_DEVIATION * probes.norm(dim=1)).all()
    )
    if not is_same:
        raise ValueError(
            f"{name} was trained on another {encoder.kind} than this one: their embeddings of one picture "
            "differ, so its scores would be wrong. Use the one that it was trained on, or train it anew."
        )


def _probes() -> Tensor:
    """Return the patterns that identify an encoder, (2, 3, 256, 256); smooth, so that resizing keeps them."""
    generator = named_generator("safety cost probes")
    coarse = torch.rand(_PROBES, 3, 4, 4, generator=generator)
    return F.interpolate(coarse, (_PROBE_SIDE, _PROBE_SIDE), mode="bilinear")
