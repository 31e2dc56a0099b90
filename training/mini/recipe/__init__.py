"""The recipe of the small world's weights, and what it shares with that of the large world."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

N = TypeVar("N", bound=nn.Module)


def seeded(make: Callable[[], N], seed: int) -> N:
    """Return a new network whose weights are drawn from a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as they are shipped, in fp16."""
    save_file({name: tensor.half().contiguous() for name, tensor in state.items()}, path, metadata)


class ProgressBar:
    """A progress bar with a running mean of the loss."""

    def __init__(self, name: str):
        self.bar, self.mean = tqdm(desc=name, mininterval=5), None

    def __enter__(self):
        return self.report

    def __exit__(self, *_):
        self.bar.close()

    def report(self, step: int, total: int, loss: float | None = None) -> None:
        """Move the bar to `step` of `total`."""
        self.bar.total = total
        if loss is not None:
            self.mean = loss if self.mean is None else 0.98 * self.mean + 0.02 * loss
            self.bar.set_postfix(loss=f"{self.mean:.4f}", refresh=False)
        self.bar.update(step - self.bar.n)
