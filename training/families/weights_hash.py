"""A name for the weights of a model, the same for every type and file they are kept in."""

import hashlib

import torch
from torch import nn


def weights_hash(*models: nn.Module) -> str:
    """Return sha256 over the names, shapes and fp32 values of all weights, 64 hexadecimal digits.

    fp16 and bf16 turn into fp32 without loss, so a model read as fp32 keeps its name. Take it before an
    adapter is attached.

    Args:
        models: of diffusers or transformers; their order counts.
    """
    digest = hashlib.sha256()
    for model in models:
        for name, tensor in sorted(model.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            values = tensor.detach().to("cpu", torch.float32).contiguous()
            digest.update(values.numpy().data)
    return digest.hexdigest()
