"""The judge of the mini model: the stand-in icon of each category, by the shipped classifier."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ...rules.categories import CATEGORIES
from ..judge import Judge, JudgeKind, Parts


def _make(preset: str, parts: Parts) -> Judge:
    # late: to list the judges, as ComfyUI does at its start, takes none of the mini model
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
        return torch.softmax(icon, dim=1)[:, columns].clamp(0, 1)

    return Judge("mini", version(), preset, 0.5, CATEGORIES, score)


KIND = JudgeKind(
    _make,
    presets=("stand_ins",),
    licence="Apache-2.0",
    summary="the mini model's stand-in icons, one per category; of no use for other pictures",
)
