"""Stable Diffusion 1.x (Rombach et al. 2022) and 2.x (Stability AI 2022), which share one UNet layout.

2.0 and 2.1 read OpenCLIP-H, whose last layer the original code skips: it applies the final norm to the layer
before. Their 768-pixel models predict v.
"""

from collections.abc import Mapping

from torch import Tensor

from .family import ClipKind, Family
from .native_unet import CHECKPOINT_PREFIX

_PREFIXES = ("cond_stage_model.model.", "conditioner.embedders.0.model.")  # of the original code and of sgm
_V_MARKER = CHECKPOINT_PREFIX + "output_blocks.11.1.transformer_blocks.0.norm1.bias"

# the mini model has its tensor names and widths too
SD15 = Family(
    name="sd15",
    text_encoders=(ClipKind(768, ("cond_stage_model.transformer.",)),),
    latent_channels=4,
    latent_scale=0.18215,
    prediction_type="epsilon",
    unet_config={"attention_head_dim": 8},  # diffusers' name for the number of heads, on every level
)


def _read_prediction(tensors: Mapping[str, Tensor]) -> tuple[str, bool]:
    """Infer the prediction type from the spread of one bias, as hosts do.

    A checkpoint does not record the type, and the shapes are equal. The bias has a wider spread in models
    that predict v.
    """
    bias = tensors.get(_V_MARKER)
    narrow = bias is not None and float(bias.float().std(correction=0)) <= 0.09
    return ("epsilon" if narrow else "v_prediction"), False


SD21 = Family(
    name="sd21",
    text_encoders=(ClipKind(1024, _PREFIXES, open_clip=True, spare_layer=True),),
    latent_channels=4,
    latent_scale=0.18215,
    prediction_type="v_prediction",
    head_channels=64,
    unet_config={"use_linear_projection": True},
    read_prediction=_read_prediction,
)
