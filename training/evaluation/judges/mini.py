"""The judge of the mini model: the shipped classifier, which sees the stand-in icon of each category."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ...rules.categories import CATEGORIES
from ..judge import Judge, JudgeKind, JudgeParts


def _make(preset: str, parts: JudgeParts) -> Judge:
    # late: ComfyUI lists the judges when it starts, which must not load the mini model
    from ...mini.build import version
    from ...mini.judge import ICON_NAMES
    from ...mini.scenes import SIZE, UNSAFE_ICONS
    from ...mini.shipped import load_judge

    classifier = load_judge()
    columns = [ICON_NAMES.index(UNSAFE_ICONS[category]) for category in CATEGORIES]

    def score(images: Tensor) -> Tensor:
        if images.shape[-2:] != (SIZE, SIZE):
            images = F.interpolate(images, (SIZE, SIZE), mode="area")
        icon, _, _ = classifier(images * 2 - 1)
        return torch.softmax(icon, dim=1)[:, columns].clamp(0, 1)  # (n, categories)

    return Judge("mini", version(), preset, 0.5, CATEGORIES, score)


KIND = JudgeKind(
    _make,
    presets=("stand_ins",),
    licence="Apache-2.0",
    summary="the mini model's stand-in icons, one per category; of no use for other pictures",
)
