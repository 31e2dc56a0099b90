"""Stable Diffusion 2.0 and 2.1 (Stability AI 2022): OpenCLIP-H encodes text; the 768-pixel models predict v.

The original code stops before the encoder's last layer and applies the final norm there.
"""

from collections.abc import Mapping

from torch import Tensor

from .family import ClipKind, Family
from .native_unet import CHECKPOINT_PREFIX

_PREFIXES = ("cond_stage_model.model.", "conditioner.embedders.0.model.")  # the original, and in sgm's way
_TELLTALE = CHECKPOINT_PREFIX + "output_blocks.11.1.transformer_blocks.0.norm1.bias"


def _read_prediction(tensors: Mapping[str, Tensor]) -> tuple[str, bool]:
    """Tell by the spread of one bias, which the models that predict v have wider; so do hosts.

    Nothing in a checkpoint says it, and the shapes are the same.
    """
    bias = tensors.get(_TELLTALE)
    narrow = bias is not None and float(bias.float().std(correction=0)) <= 0.09
    return ("epsilon" if narrow else "v_prediction"), False


SD21 = Family(
    name="sd21",
    label="SD 2.1",
    text_encoders=(ClipKind(1024, _PREFIXES, open_clip=True, spare_layer=True),),
    latent_channels=4,
    latent_scale=0.18215,
    prediction_type="v_prediction",
    head_channels=64,
    unet_config={"use_linear_projection": True},
    read_prediction=_read_prediction,
)
