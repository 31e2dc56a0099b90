"""A name for the weights of a model, the same for every type and file they are kept in."""

import hashlib
from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn


class WeightsDigest:
    """SHA-256 over weights that come one by one, in the order of their names."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, name: str, tensor: Tensor) -> None:
        """Take in the next weight: its name, shape and fp32 values."""
        self._digest.update(f"{name}{tuple(tensor.shape)}".encode())
        self._digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().data)

    def hexdigest(self) -> str:
        """Return 64 hexadecimal digits."""
        return self._digest.hexdigest()


def weights_hash(
    *models: nn.Module, without: Collection[str] = (), on_progress: Callable[[int], None] | None = None
) -> str:
    """Return sha256 over the names, shapes and fp32 values of all weights, 64 hexadecimal digits.

    fp16 and bf16 turn into fp32 without loss, so a model read as fp32 keeps its name. Take it before an
    adapter is attached.

    Args:
        models: of diffusers or transformers; their order counts.
        without: names of weights that do not count.
        on_progress: called with the number of weights read; whatever it raises stops the reading.
    """
    digest = WeightsDigest()
    weights = [weight for model in models for weight in sorted(model.state_dict().items())]
    weights = [(name, tensor) for name, tensor in weights if name not in without]
    for done, (name, tensor) in enumerate(weights, start=1):
        digest.add(name, tensor)
        if on_progress:
            on_progress(done)
    return digest.hexdigest()
