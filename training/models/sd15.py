"""Stable Diffusion 1.x (Rombach et al. 2022); the mini model has its tensor names and widths too."""

from .family import ClipKind, Family

SD15 = Family(
    name="sd15",
    text_encoders=(ClipKind(768, ("cond_stage_model.transformer.",)),),
    latent_channels=4,
    latent_scale=0.18215,
    prediction_type="epsilon",
    unet_config={"attention_head_dim": 8},  # diffusers' name for the number of heads, on every level
)
