"""The judge of the mini models: a shipped classifier, which sees the stand-ins of its world by category."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...rules.categories import CATEGORIES
from ..judge import Judge, JudgeKind, JudgeParts


def _make(preset: str, parts: JudgeParts) -> Judge:
    from ...mini.scenes import SIZE  # late, see `_world`

    weights, stand_ins = _world(preset)
    classifier = weights.load_judge()
    columns = _columns(classifier.tables[0], stand_ins)

    def score(images: Tensor) -> Tensor:
        if images.shape[-2:] != (SIZE, SIZE):
            images = F.interpolate(images, (SIZE, SIZE), mode="area")
        things, *_ = classifier(images * 2 - 1)
        return (torch.softmax(things, dim=1) @ columns).clamp(0, 1)  # (n, categories)

    return Judge("mini", weights.version(), preset, 0.5, CATEGORIES, score)


def _world(preset: str):
    """Return the weights of a preset's world, and the names of its stand-ins by category."""
    # late: ComfyUI lists the judges when it starts, which must not load the mini models
    if preset == "large":
        from ...mini.large.concepts import STAND_INS
        from ...mini.large.shipped import LARGE

        return LARGE, {name: [concept.name for concept in row] for name, row in STAND_INS.items()}
    from ...mini.scenes import UNSAFE_ICONS
    from ...mini.shipped import SMALL

    return SMALL, {name: [icon] for name, icon in UNSAFE_ICONS.items()}


def _columns(answers: Sequence[str], stand_ins: Mapping[str, Sequence[str]]) -> Tensor:
    """Return 1 where an answer is a stand-in of a category, else 0, (answers, categories)."""
    return torch.tensor([[float(answer in stand_ins[name]) for name in CATEGORIES] for answer in answers])


KIND = JudgeKind(
    _make,
    presets=("stand_ins", "large"),  # of the small world, of the large one
    licence="Apache-2.0",
    summary="the mini models' stand-ins for each category; of no use for other pictures",
    lists_default_by_name=True,
)
