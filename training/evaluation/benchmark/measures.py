"""What else is measured where the user brings the models for it, or why it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from ..measures.clip_score import load_clip_score
from ..measures.fid import load_inception
from ..measures.sentences import PACKAGE, SentenceModel, find_sentences
from ..optional import model_hash

if TYPE_CHECKING:
    import torch

    from .run import Measure

CLIP_SCORE = "clip_score"
MEANING = "diversity in meaning"
NO_SENTENCES = f"it needs the package {PACKAGE}, which is not installed"


class Measures(NamedTuple):
    """Measures of neutral pictures, and of prompts.

    Attributes:
        numbers: name -> f(picture, prompt).
        features: for FID; None: not wanted.
        missing: what is not measured -> why.
        models: what is measured of pictures -> hash of its model's files; belongs to the settings of a
            benchmark, so that one begun does not go on with another model.
        sentences: for the diversity of prompts in meaning; None: not there.
    """

    numbers: dict[str, Measure]
    features: Callable[[Tensor], Tensor] | None
    missing: dict[str, str]
    models: dict[str, str]
    sentences: SentenceModel | None


def load_measures(
    clip_score: Path | None, inception: Path | None, device: torch.device | str = "cpu", *, how: str
) -> Measures:
    """Load the measures whose models are there.

    Args:
        clip_score: folder of a CLIP model.
        inception: file of the weights of FID's network.
        device: where they run.
        how: where the others are to be given, for people.

    Raises:
        ValueError: as `load_clip_score` and `load_inception`.
    """
    named = {"CLIPScore": (clip_score, "a CLIP model"), "FID": (inception, "its Inception weights")}
    missing = {what: f"{model} must be given: {how}" for what, (path, model) in named.items() if path is None}
    models = {f"{what} model": model_hash(path) for what, (path, _) in named.items() if path is not None}
    numbers = {CLIP_SCORE: load_clip_score(clip_score, device)} if clip_score else {}
    sentences = None
    try:
        sentences = find_sentences(device)
        if sentences is None:
            missing[MEANING] = NO_SENTENCES
    except ValueError as error:  # nobody asked for it, so it stops nothing
        missing[MEANING] = str(error)
    features = load_inception(inception, device) if inception else None
    return Measures(numbers, features, missing, models, sentences)
