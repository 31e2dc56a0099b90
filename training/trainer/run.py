"""What a run is: the UNet, the pairs, the options and the machine that it trains on; fixed while it lasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..experts import adapter
from ..models.noise import Schedule
from ..pairs.training_data import TrainingData
from ..system.processes import ALONE, Processes
from .pair_weighting import weighed

if TYPE_CHECKING:
    from .plan import Plan
    from .result import TrainResult


def _ignore(*_: object) -> None:
    """Do nothing; the default of every callback."""


@dataclass(frozen=True)
class Callbacks:
    """How a caller follows a run and stops it.

    Whatever `on_progress` or `check_cancel` raises cancels the run: the state is saved and the exception is
    passed on.

    Attributes:
        on_plan: called before the first step with how the run is done and how long it may take.
        on_progress: called after every step with (steps done, all steps, the metrics of that step).
        on_stop: called with the result so far when the run ends early after at least one step, before the
            exception is passed on. An OSError that it raises is a warning in the log.
        check_cancel: called before every micro-batch.
    """

    on_plan: Callable[[Plan], None] = _ignore
    on_progress: Callable[[int, int, Mapping[str, float]], None] = _ignore
    on_stop: Callable[[TrainResult], None] = _ignore
    check_cancel: Callable[[], None] = _ignore


@dataclass(frozen=True, eq=False)  # holds tensors, so equality stays identity
class Run:
    """A run, apart from how far it is (`Progress`) and what it writes (`RunFolder`).

    Attributes:
        unet: frozen, with the adapter attached.
        data: the pairs to train on; held-out pairs are in none of its buckets.
        weights: how much each pair counts, in [0, 1], see `weighed`, (pairs,) fp32 on the CPU.
        schedule: of the family of the UNet.
        config: resolved options.
        processes: the processes that train this expert together.
        callbacks: how the caller follows the run.
        initial_a_hash: of the adapter before the first step, see `adapter.initial_a_hash`.
        micro_batch: most pairs in memory at once.
    """

    unet: nn.Module
    data: TrainingData
    weights: Tensor
    schedule: Schedule
    config: TrainConfig
    processes: Processes
    callbacks: Callbacks
    initial_a_hash: str
    micro_batch: int

    @classmethod
    def of(
        cls,
        unet: nn.Module,
        data: TrainingData,
        schedule: Schedule,
        config: TrainConfig,
        *,
        processes: Processes = ALONE,
        callbacks: Callbacks | None = None,
    ) -> Run:
        """Weigh the pairs and return the run as it is before its first step.

        Args:
            unet: with the adapter attached.
            data: the pairs to train on.
            schedule: of the family of the UNet.
            config: resolved options.
            processes: the processes of the run.
            callbacks: how the caller follows it; None: not at all.

        Raises:
            ValueError: if the pairs cannot be weighed as `config.pair_weighting` asks.
        """
        data, weights = weighed(data, config.pair_weighting, config.cost_weight)
        return cls(
            unet=unet,
            data=data,
            weights=weights,
            schedule=schedule,
            config=config,
            processes=processes,
            callbacks=callbacks or Callbacks(),
            initial_a_hash=adapter.initial_a_hash(unet),
            micro_batch=config.batch_size,
        )

    @cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The trainable factors by name, in the order of the network."""
        return adapter.adapter_parameters(self.unet)

    @property
    def device(self) -> torch.device:
        """The device that the adapter is trained on."""
        return next(iter(self.parameters.values())).device

    @property
    def autocast(self) -> torch.dtype | None:
        """The type that the UNet runs in; None: the type of its weights."""
        return autocast_dtype(self.config.precision, self.device)


def named_precision(precision: str, device: torch.device) -> str:
    """Return the precision; `auto` becomes the best precision that the device computes fast."""
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the type to run the UNet in; None: the type of its weights."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(named_precision(precision, device))
