"""Small parts of a flow with random weights, built from the host's own classes; import it after the host."""

import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.utils
import torch
from comfy.ldm.flux.model import FluxParams
from comfy.ldm.wan.vae import WanVAE
from comfy.taesd.taesd import TAESD

NETWORKS = {  # family -> the host's class, and the settings of a small network
    "flux1": (
        "Flux",
        {
            "image_model": "flux",
            "in_channels": 16,
            "out_channels": 16,
            "patch_size": 2,
            "vec_in_dim": 768,
            "context_in_dim": 4096,
            "hidden_size": 128,
            "mlp_ratio": 4.0,
            "num_heads": 4,
            "depth": 2,
            "depth_single_blocks": 2,
            "axes_dim": [4, 14, 14],
            "theta": 10000,
            "qkv_bias": True,
            "guidance_embed": True,
        },
    ),
    "flux2": (
        "Flux2",
        {
            "image_model": "flux2",
            "in_channels": 128,
            "out_channels": 128,
            "patch_size": 1,
            "vec_in_dim": None,
            "context_in_dim": 7680,
            "hidden_size": 256,
            "mlp_ratio": 3.0,
            "num_heads": 2,
            "depth": 2,
            "depth_single_blocks": 2,
            "axes_dim": [32, 32, 32, 32],
            "theta": 2000,
            "qkv_bias": False,
            "ops_bias": False,
            "guidance_embed": False,
            "global_modulation": True,
            "mlp_silu_act": True,
        },
    ),
    "zimage": (
        "ZImage",
        {
            "image_model": "lumina2",
            "in_channels": 16,
            "patch_size": 2,
            "cap_feat_dim": 2560,
            "dim": 256,  # at least that of the time embedding
            "n_layers": 2,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "n_kv_heads": 2,
            "qk_norm": True,
            "multiple_of": 32,
            "ffn_dim_multiplier": 8 / 3,
            "axes_dims": [32, 48, 48],
            "axes_lens": [1536, 512, 512],
            "rope_theta": 256.0,
            "z_image_modulation": True,
            "time_scale": 1000.0,
            "pad_tokens_multiple": 32,
        },
    ),
    "qwenimage": (
        "QwenImage",
        {
            "image_model": "qwen_image",
            "num_layers": 2,
            "num_attention_heads": 2,
        },
    ),
    "krea2": (
        "Krea2",
        {
            "image_model": "krea2",
            "features": 256,
            "channels": 16,
            "patch": 2,
            "layers": 2,
            "heads": 2,
            "kvheads": 1,
            "multiplier": 1,
            "txtlayers": 12,
            "txtdim": 2560,
        },
    ),
    "anima": (
        "Anima",
        {
            "image_model": "anima",
            "max_img_h": 240,
            "max_img_w": 240,
            "max_frames": 128,
            "in_channels": 16,
            "out_channels": 16,
            "patch_spatial": 2,
            "patch_temporal": 1,
            "model_channels": 256,
            "num_blocks": 2,
            "num_heads": 2,
            "concat_padding_mask": True,
            "crossattn_emb_channels": 1024,
            "pos_emb_cls": "rope3d",
            "pos_emb_learnable": True,
            "pos_emb_interpolation": "crop",
            "min_fps": 1,
            "max_fps": 30,
            "use_adaln_lora": True,
            "adaln_lora_dim": 256,
            "extra_per_block_abs_pos_emb": False,
            "rope_h_extrapolation_ratio": 4.0,
            "rope_w_extrapolation_ratio": 4.0,
            "rope_t_extrapolation_ratio": 1.0,
            "extra_h_extrapolation_ratio": 1.0,
            "extra_w_extrapolation_ratio": 1.0,
            "extra_t_extrapolation_ratio": 1.0,
            "rope_enable_fps_modulation": False,
        },
    ),
}
ENCODERS = {  # settings of small text encoders; their widths and vocabularies are the published ones'
    "t5xxl_model_config": {"num_layers": 1, "num_heads": 2, "d_ff": 64},
    "qwen3_4b_model_config": {
        "num_hidden_layers": 28,  # FLUX.2 reads the prompt off number 27, Z-Image off the last but one
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
    },
    "qwen3vl_4b_model_config": {
        "num_hidden_layers": 36,  # the prompt is read off twelve of them, the last of which is number 35
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
    },
    "qwen3_06b_model_config": {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
    },
    "qwen25_7b_model_config": {
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
    },
}
_CLIP = "cond_stage_model.transformer."


def host_config(family: str):
    """Return the host's settings of a family's small network."""
    name, settings = NETWORKS[family]
    extra = {}
    if "txt_ids_dims" in FluxParams.__dataclass_fields__:  # of newer hosts
        extra = {"Flux": {"txt_ids_dims": []}, "Flux2": {"txt_ids_dims": [3]}}.get(name, {})
    config = getattr(comfy.supported_models, name)(settings | extra)
    config.set_inference_dtype(torch.float32, None)
    return config


def built_model(family: str):
    """Return a MODEL."""
    base = host_config(family).get_model({}, "")
    fill(base.diffusion_model)
    return comfy.model_patcher.ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))


def built_clip(family: str, checkpoint: str):
    """Return a CLIP of small encoders with random weights; CLIP-L is that of an SD 1.5 checkpoint."""
    clip = comfy.sd.CLIP(_encoders_of(family), model_options=ENCODERS)
    for encoder in clip.cond_stage_model.children():
        encoder.transformer.__dict__["_modules"].pop("visual", None)  # reads pictures of a prompt
    fill(clip.cond_stage_model)
    if not hasattr(clip.cond_stage_model, "clip_l"):
        return clip
    state = comfy.utils.load_torch_file(checkpoint)
    state = {name.removeprefix(_CLIP): state[name] for name in state if name.startswith(_CLIP)}
    clip.cond_stage_model.clip_l.load_sd(state)
    return clip


def lacking(family: str) -> str:
    """Return what of a family this host lacks, for people; empty if it has all."""
    if family in NETWORKS and not hasattr(comfy.supported_models, NETWORKS[family][0]):
        return f"this host has no {NETWORKS[family][0]}; newer ones have"
    return ""


def lacking_encoders(family: str) -> str:
    """Return as `lacking`, of the text encoders too."""
    if family in NETWORKS and not lacking(family) and _encoders_of(family) is None:
        return f"this host has no text encoder of {NETWORKS[family][0]} that is small; newer ones have"
    return lacking(family)


def _encoders_of(family: str):
    """Return the host's text encoders of a family, of several those of the smallest size."""
    state = {"text_encoders.qwen3_4b.transformer.model.norm.weight": torch.zeros(1, dtype=torch.float16)}
    return host_config(family).clip_target(state if family == "flux2" else {})


def built_vae(family: str):
    """Return a small VAE of a family whose latents have another form than SD 3's; None of any other."""
    latent_format = host_config(family).latent_format
    if latent_format.latent_channels == 128:
        network = TAESD(latent_channels=128)
        fill(network)
        return comfy.sd.VAE(sd=network.state_dict(), metadata={"tae_latent_channels": 128})
    if latent_format.latent_dimensions == 2:
        return None
    network = WanVAE(
        dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, temperal_downsample=[False, True, True]
    )
    fill(network)
    return comfy.sd.VAE(sd=network.state_dict())


def fill(module: torch.nn.Module) -> None:
    """Give every parameter random values; those that scale are near one."""
    generator = torch.Generator().manual_seed(0)
    for path, weight in module.named_parameters():
        values = torch.randn(weight.shape, generator=generator)
        is_scale = "norm" in path or path.endswith("scale")
        weight.data.copy_(values / weight[0].numel() ** 0.5 if weight.ndim > 1 else 0.1 * values + is_scale)
