"""A tiny model before and after tuning, as files in every layout that an extraction reads."""

import json

import torch
from safetensors.torch import save_file

from tiny_checkpoint import LAYOUT, tiny_models
from training.experts.layer_names import is_layer
from training.experts.low_rank import LowRank
from training.models.native_unet import module_names, native_name


def half_unet(seed=0):
    """Return the weights of the tiny UNet of SD 1.5, fp16, by diffusers' names."""
    state = tiny_models(seed)["unet"].state_dict()
    return {name: tensor.half().contiguous() for name, tensor in state.items()}


def lora_of_all_layers(state, rank=3, size=0.02, seed=1):
    """Return a LoRA of every linear layer and convolution of a UNet; `size` is the scale of its elements."""
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for name in sorted(state):
        module = name.removesuffix(".weight")
        if name != module and is_layer(module):
            d_out, d_in = state[name].flatten(1).shape
            up = torch.randn(d_out, rank, generator=generator)
            layers[module] = LowRank(size * up, torch.randn(rank, d_in, generator=generator))
    return layers


def tuned(state, layers):
    """Return the weights with a LoRA added, rounded to fp16 once."""
    new = dict(state)
    for module, layer in layers.items():
        weight = state[f"{module}.weight"]
        new[f"{module}.weight"] = (weight.float() + layer.delta().reshape(weight.shape)).half()
    return new


def write_single(path, state, prefix="model.diffusion_model."):
    """Write a single file under the names of the original code."""
    table = module_names(LAYOUT)
    save_file({prefix + native_name(name, table): tensor for name, tensor in state.items()}, path)
    return path


def write_folder(folder, state, num_shards=1):
    """Write the `unet` of a diffusers folder, as one file or in shards with an index."""
    unet = folder / "unet"
    unet.mkdir(parents=True)
    if num_shards == 1:
        save_file(state, unet / "diffusion_pytorch_model.safetensors")
        return folder
    names = sorted(state)
    weight_map = {}
    for number in range(num_shards):
        part = names[number::num_shards]
        file = f"diffusion_pytorch_model-{number + 1:05}-of-{num_shards:05}.safetensors"
        save_file({name: state[name] for name in part}, unet / file)
        weight_map |= dict.fromkeys(part, file)
    index = unet / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder
