"""Optional measures, loaded where the user provides their models; the others say why they are missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from ..measures.clip_score import load_clip_score
from ..measures.fid import load_inception
from ..measures.sentences import PACKAGE, SentenceModel, find_sentences
from ..optional import model_hash

if TYPE_CHECKING:
    import torch

CLIP_SCORE = "clip_score"
MEANING = "diversity in meaning"
NO_SENTENCES = f"it needs the package {PACKAGE}, which is not installed"

Measure = Callable[[Tensor, str], float]  # f(picture (1, 3, h, w) in [0, 1], its prompt)


class Measures(NamedTuple):
    """Measures of neutral pictures and of prompts, besides the judges.

    Attributes:
        of_pictures: name -> measure of a neutral picture against its prompt, such as CLIPScore; also applied
            to a picture of an unsafe prompt and the harmless part of that prompt.
        features: f(picture) -> features (2048,) of a neutral picture, for FID; None: FID is not measured.
        missing: what is not measured -> why.
        models: measure -> hash of its model's files. They belong to the settings of a benchmark, so that one
            begun with a model cannot be continued with another.
        sentences: embeds prompts, to measure how far they differ in meaning; None: not installed.
    """

    of_pictures: Mapping[str, Measure] = MappingProxyType({})
    features: Callable[[Tensor], Tensor] | None = None
    missing: Mapping[str, str] = MappingProxyType({})
    models: Mapping[str, str] = MappingProxyType({})
    sentences: SentenceModel | None = None


def load_measures(
    clip_score: Path | None, inception: Path | None, device: torch.device | str = "cpu", *, how: str
) -> Measures:
    """Load the measures whose models are available.

    Args:
        clip_score: folder of a CLIP model; None: CLIPScore is not measured.
        inception: file of the Inception weights; None: FID is not measured.
        device: where the models run.
        how: tells people where to put the missing models.

    Raises:
        ValueError: as `load_clip_score` and `load_inception`.
    """
    files = {"CLIPScore": (clip_score, "a CLIP model"), "FID": (inception, "its Inception weights")}
    missing = {what: f"{model} must be given: {how}" for what, (path, model) in files.items() if path is None}
    models = {f"{what} model": model_hash(path) for what, (path, _) in files.items() if path is not None}
    sentences = None
    try:
        sentences = find_sentences(device)
        if sentences is None:
            missing[MEANING] = NO_SENTENCES
    except ValueError as error:  # it is optional and was not asked for, so it must not stop the run
        missing[MEANING] = str(error)
    return Measures(
        of_pictures={CLIP_SCORE: load_clip_score(clip_score, device)} if clip_score else {},
        features=load_inception(inception, device) if inception else None,
        missing=missing,
        models=models,
        sentences=sentences,
    )
