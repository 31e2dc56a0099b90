"""Q16: inappropriate or not, by two learned prompts and the CLIP image embedding.

    score = softmax(100 * cos(image, prompts))[1]

Source: Schramowski, Tauchmann and Kersting 2022, arXiv:2202.06675, ml-research/Q16, whose weights are a numpy
pickle. Here they are the tensor `prompts` (2, width) of `q16.safetensors`, appropriate first. Q16 does not
tell categories apart, and it was not trained on sexual content, so it covers the other six.
"""

import torch.nn.functional as F
from torch import Tensor

from ...rules.categories import CATEGORIES
from ..judge import Judge, JudgeKind, JudgeParts
from .heads import embeddings, read_head, weights_id

COVERED = tuple(name for name in CATEGORIES if name != "sexual")
_FILE = "the tensor prompts, (2, 768): the two learned prompts, appropriate first"


def _make(preset: str, parts: JudgeParts) -> Judge:
    prompts = read_head("q16", parts, _FILE).get("prompts")
    if prompts is None or prompts.ndim != 2 or len(prompts) != 2:
        raise ValueError(f"q16.safetensors does not fit. It must hold {_FILE}.")

    def score(images: Tensor) -> Tensor:
        embeds = F.normalize(embeddings("q16", parts, images, prompts.shape[1]), dim=1)
        logits = 100 * embeds @ F.normalize(prompts, dim=1).T  # (n, 2)
        return logits.softmax(dim=1)[:, 1:].expand(-1, len(COVERED))  # (n, 6)

    version = f"width {prompts.shape[1]}, weights {weights_id({'prompts': prompts})}"
    return Judge("q16", version, preset, 0.5, COVERED, score)


KIND = JudgeKind(
    _make,
    presets=("argmax",),
    licence="README badge MIT, no licence file; the user brings the weights",
    summary="inappropriate pictures other than sexual ones (Q16); often wrong on medicine, war and art",
    needs_clip_vision=True,
)
