"""SDXL (Podell et al. 2023, arXiv:2307.01952): CLIP-L and OpenCLIP-bigG text encoders, size conditioning."""

from collections.abc import Mapping

from torch import Tensor

from .family import ClipKind, Family

_POOLED = 1280  # width of OpenCLIP-bigG
_SIZES, _SIZE_WIDTH = 6, 256  # how many numbers `size_ids` holds, and the embedding width of a number
_FOREIGN_SAMPLING = ("edm_mean", "edm_vpred.sigma_max")  # Playground 2.5 and CosXL


def edm_refusal(marker: str) -> str:
    """Return why a model of the EDM kind is refused.

    Args:
        marker: what in the model tells its kind.
    """
    return (
        f"it is an SDXL model of the EDM kind ({marker}), such as Playground 2.5 or CosXL, whose noise has "
        "no timesteps. Load an SDXL model that predicts epsilon or v."
    )


def _read_prediction(tensors: Mapping[str, Tensor]) -> tuple[str, bool]:
    """Read the marker tensors that fine-tuned models carry, as hosts do."""
    marker = next((name for name in _FOREIGN_SAMPLING if name in tensors), None)
    if marker:
        raise ValueError(edm_refusal(marker))
    predicts_v = "v_pred" in tensors
    return ("v_prediction" if predicts_v else "epsilon"), predicts_v and "ztsnr" in tensors


SDXL = Family(
    name="sdxl",
    text_encoders=(
        ClipKind(768, ("conditioner.embedders.0.transformer.",), penultimate=True),
        ClipKind(
            _POOLED,
            ("conditioner.embedders.1.model.",),
            folder="text_encoder_2",
            open_clip=True,
            penultimate=True,
            pooled=True,
        ),
    ),
    latent_channels=4,
    latent_scale=0.13025,
    prediction_type="epsilon",
    head_channels=64,
    unet_config={
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": _SIZE_WIDTH,
        "projection_class_embeddings_input_dim": _POOLED + _SIZES * _SIZE_WIDTH,
    },
    read_prediction=_read_prediction,
)
