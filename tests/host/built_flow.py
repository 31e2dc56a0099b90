"""Small parts of a flow with random weights, built from the host's own classes; import it after the host."""

import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.utils
import torch

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
}
T5 = {"num_layers": 1, "num_heads": 2, "d_ff": 64}  # its width and vocabulary stay those of the published one
_CLIP = "cond_stage_model.transformer."


def host_config(family: str):
    """Return the host's settings of a family's small network."""
    name, settings = NETWORKS[family]
    config = getattr(comfy.supported_models, name)(dict(settings))
    config.set_inference_dtype(torch.float32, None)
    return config


def built_model(family: str):
    """Return a MODEL."""
    base = host_config(family).get_model({}, "")
    fill(base.diffusion_model)
    return comfy.model_patcher.ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))


def built_clip(family: str, checkpoint: str):
    """Return a CLIP: the CLIP-L of an SD 1.5 checkpoint, and a small T5 with random weights."""
    clip = comfy.sd.CLIP(host_config(family).clip_target(), model_options={"t5xxl_model_config": T5})
    state = comfy.utils.load_torch_file(checkpoint)
    state = {name.removeprefix(_CLIP): state[name] for name in state if name.startswith(_CLIP)}
    clip.cond_stage_model.clip_l.load_sd(state)
    fill(clip.cond_stage_model.t5xxl)
    return clip


def fill(module: torch.nn.Module) -> None:
    """Give every parameter random values; those that scale are near one."""
    generator = torch.Generator().manual_seed(0)
    for path, weight in module.named_parameters():
        values = torch.randn(weight.shape, generator=generator)
        is_scale = "norm" in path or path.endswith("scale")
        weight.data.copy_(values / weight[0].numel() ** 0.5 if weight.ndim > 1 else 0.1 * values + is_scale)
