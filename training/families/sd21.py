"""Stable Diffusion 2.0 and 2.1 (Stability AI 2022): OpenCLIP-H encodes text; the 768-pixel models predict v.

A checkpoint does not say what it predicts, and its shapes are those of the 512-pixel base model, which
predicts epsilon. A file is taken for a 768-pixel model; a folder of diffusers and a host know better.
"""

from .family import Family

SD21 = Family(
    name="sd21",
    label="SD 2.1",
    text_width=1024,
    latent_channels=4,
    latent_scale=0.18215,
    prediction_type="v_prediction",
    head_channels=64,
    open_clip=True,
    unet_config={"use_linear_projection": True},
)
