"""An expert on a part of the sampling: its update is added to what the layers compute.

The host's weight hooks would change the weights instead. A model that the host loads piece by piece
(DynamicVRAM) refuses them, and elsewhere they keep a second copy of the weights. This works with every way of
loading, and with weights of any type.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import comfy.hooks
import torch
from comfy.patcher_extension import WrappersMP, add_wrapper
from torch import Tensor, nn

from ...training.experts.low_rank import LowRank, added_output

_KEY = "alignguard_ranged_expert"  # of the wrapper; a second copy of the pack knows it too


def add_ranged(model: Any, layers: Mapping[str, LowRank], strength: float, start: float, end: float) -> None:
    """Let layers act on a part of every sampling run of a MODEL.

    Args:
        model: MODEL; it is changed.
        layers: host's key of a weight -> its update.
        strength: factor of the updates.
        start: share of the sampling after which they are switched on, in [0, end).
        end: share of the sampling after which they are switched off, at most 1.
    """
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, _KEY, RangedExpert(layers, strength, start, end))


def has_ranged(model: Any) -> bool:
    """Return whether an expert acts on a part of the sampling of a MODEL."""
    return bool(model.wrappers.get(WrappersMP.OUTER_SAMPLE, {}).get(_KEY))


class RangedExpert:
    """Wraps a sampling run of the host; see `add_ranged`."""

    def __init__(self, layers: Mapping[str, LowRank], strength: float, start: float, end: float):
        self._layers, self._strength, self._range = dict(layers), strength, (start, end)

    def content_facts(self) -> list[Any]:
        """Return what identifies it, wherever the pack is installed."""
        factors = {key: [layer.up, layer.down] for key, layer in self._layers.items()}
        return [_KEY, self._strength, *self._range, factors]

    def __call__(self, executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Run the sampling with the expert; the arguments are those of the guider's `outer_sample`."""
        run = _Run(self._layers, self._strength, keyframes(*self._range), sigmas=args[3])
        add_wrapper(
            WrappersMP.APPLY_MODEL, run.predict, executor.class_obj.model_options, is_model_options=True
        )
        return executor(*args, **kwargs)


def keyframes(start: float, end: float) -> comfy.hooks.HookKeyframeGroup:
    """Return the host's schedule of a factor that is 1 within the range and 0 outside."""
    frames = comfy.hooks.HookKeyframeGroup()
    switches = [(0.0, 0.0)] * (start > 0) + [(1.0, start)] + [(0.0, end)] * (end < 1)
    for factor, percent in switches:
        frames.add(comfy.hooks.HookKeyframe(factor, percent, guarantee_steps=0))
    return frames


class _Run:
    """One sampling run: where the schedule stands, and the factors on the devices that draw."""

    def __init__(
        self,
        layers: Mapping[str, LowRank],
        strength: float,
        frames: comfy.hooks.HookKeyframeGroup,
        sigmas: Tensor,
    ):
        self._layers, self._strength, self._frames = layers, strength, frames
        self._options = {"sample_sigmas": sigmas}
        self._moved: dict[tuple[str, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}
        self._factors: dict[torch.device, Tensor] = {}
        self._is_timed = False

    def predict(self, executor: Any, x: Tensor, sigma: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Predict with the layers at the factor of this noise level."""
        if not self._is_timed:
            self._frames.initialize_timesteps(executor.class_obj)
            self._is_timed = True
        self._frames.prepare_current_keyframe(sigma[0], self._options)
        factor = self._factors.setdefault(x.device, torch.zeros((), device=x.device))
        # a tensor, and the same operations at 0 too: a host that records the operations of one step and
        # replays them in the next would not notice another number or another operation
        factor.fill_(self._frames.strength * self._strength)
        with self._attached(executor.class_obj, factor):
            return executor(x, sigma, *args, **kwargs)

    @contextmanager
    def _attached(self, model: nn.Module, factor: Tensor) -> Iterator[None]:
        handles = [
            model.get_submodule(key.removesuffix(".weight")).register_forward_hook(self._adding(key, factor))
            for key in self._layers
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _adding(self, key: str, factor: Tensor) -> Callable[..., Tensor]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = inputs[0]
            up, down = self._factors_of(key, x)
            return output + added_output(module, x, up, down) * factor

        return add

    def _factors_of(self, key: str, x: Tensor) -> tuple[Tensor, Tensor]:
        place = key, x.device, x.dtype
        if place not in self._moved:
            layer = self._layers[key]
            self._moved[place] = layer.up.to(x.device, x.dtype), layer.down.to(x.device, x.dtype)
        return self._moved[place]
