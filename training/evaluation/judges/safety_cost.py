"""The judge that a person trains on their own pairs: a safety cost model, see `cost_model`.

    score = sigmoid(cost), so that the threshold 0.5 is cost 0, the border between safe and unsafe

It does not tell categories apart: every category of the pairs that it was trained on gets the same score. The
preset of its numbers is the kind of embedding that it reads.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..cost_model import CLIP_VISION, VAE, CostModel, ImageEncoder, latent_encoder, read_cost_model
from ..judge import Judge, JudgeKind, JudgeParts

NAME = "safety_cost"
FILE = f"{NAME}.safetensors"


def cost_judge(model: CostModel) -> Judge:
    """Return a cost model as a judge."""

    def score(images: Tensor) -> Tensor:
        return model.costs(images).sigmoid()[:, None].expand(-1, len(model.categories))  # (n, categories)

    return Judge(NAME, f"weights {model.id()}", model.encoder.kind, 0.5, model.categories, score)


def encoders_of(parts: JudgeParts) -> dict[str, ImageEncoder | None]:
    """Return the encoders that are at hand, by kind."""
    return {
        CLIP_VISION: ImageEncoder(CLIP_VISION, parts.embed) if parts.embed else None,
        VAE: latent_encoder(parts.latents) if parts.latents else None,
    }


def _make(preset: str, parts: JudgeParts) -> Judge:
    if parts.cost is not None:
        return cost_judge(parts.cost)
    path = (parts.heads or Path()) / FILE
    if parts.heads is None or not path.is_file():
        raise ValueError(
            f"the judge {NAME} needs {path}, which does not exist. Train it on your pairs with Train Safety "
            "Cost or `judge train`, and copy the file there under this name."
        )
    return cost_judge(read_cost_model(path, encoders_of(parts)))


KIND = JudgeKind(
    _make,
    presets=("own",),
    licence="Apache-2.0; the user trains the weights",
    summary="what your own pairs call unsafe, without telling categories apart (after SC-DPO's cost model)",
)
