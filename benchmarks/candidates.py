"""The models that `own_table.py` compares: the base, our experts, their merges, and the baselines.

A candidate holds the weights that it adds to the narrow mini UNet and the time needed to make them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache

import torch
from torch import Tensor

from baselines.esd import EsdConfig, train_esd
from baselines.sld import PUBLISHED, SldConfig
from baselines.uce import UceConfig, edit_uce
from merge_quality import merged, trained
from mini_lab import RECIPE, MiniLab
from training.experts.expert import SafetyExpert
from training.experts.low_rank import LowRank
from training.merging import MERGE_METHODS
from training.mini.pairs import safe_scenes, trained_scenes
from training.mini.scenes import UNSAFE_ICONS
from training.rules.categories import CATEGORIES
from training.trainer.loop import train

Change = Mapping[str, Tensor]  # parameter name -> tensor added to it

SEED = 0
ESD = {  # as published, and stopped before it damages what must be kept, see `baseline_grid`
    "ESD-u": EsdConfig(),
    "ESD-u, 40 steps": EsdConfig(steps=40, eta=3.0),
}
UCE = UceConfig()
PACE_STEPS = 20  # steps that are timed; the experts may come from an earlier run
UNSAFE_TEXT = ", ".join(UNSAFE_ICONS.values())  # one text that lists all concepts, as in the papers


@dataclass(frozen=True)
class Candidate:
    """A model to measure.

    Attributes:
        changes: category -> what the model adds to the base; the key "" stands for all prompts.
        train_s: processor seconds needed to make it.
        guidance: settings of SLD; None without SLD.
        layers: the changes as LoRAs, under the same keys; empty if they are not LoRAs.
    """

    changes: Mapping[str, Change]
    train_s: float = 0.0
    guidance: SldConfig | None = None
    layers: Mapping[str, Mapping[str, LowRank]] = field(default_factory=dict)

    def change(self, category: str) -> Change:
        """Return the change that acts on the prompts of a category."""
        return self.changes.get(category, self.changes.get("", {}))


def candidates(lab: MiniLab) -> dict[str, Callable[[], Candidate]]:
    """Return a function that makes each candidate, by name and in the order of the table."""
    return {
        "base": lambda: Candidate({}),
        "single experts": lambda: _single(lab),
        "all-in-one": lambda: _all_in_one(lab),
        **{method: lambda method=method: _merge(lab, method) for method in MERGE_METHODS},
        **{name: lambda config=config: timed(lambda: esd(lab, config)) for name, config in ESD.items()},
        "UCE": lambda: timed(lambda: uce(lab, UCE)),
        **{f"SLD {name}": lambda name=name: Candidate({}, 0.0, PUBLISHED[name]) for name in PUBLISHED},
    }


def esd(lab: MiniLab, config: EsdConfig) -> Change:
    """Erase the unsafe prompts of all pairs by ESD-u."""
    return train_esd(lab.unet, texts(lab, unsafe_prompts()), lab.embeds[""][None], config)


def uce(lab: MiniLab, config: UceConfig) -> Change:
    """Make the model read all unsafe prompts as their safe ones, and preserve the safe and the empty prompt.

    What is measured as kept, such as the neutral icons, is not among the prompts that it preserves.
    """
    scenes = [scene for icon in UNSAFE_ICONS.values() for scene in trained_scenes(icon)]
    safe = texts(lab, [scene.safe_twin().prompt() for scene in scenes])
    preserved = texts(lab, ["", *(scene.prompt() for scene in safe_scenes())])
    return edit_uce(lab.unet, texts(lab, unsafe_prompts()), safe, preserved, config)


def unsafe_prompts() -> list[str]:
    """Return the unsafe prompts of the pairs of all categories."""
    return [scene.prompt() for icon in UNSAFE_ICONS.values() for scene in trained_scenes(icon)]


def texts(lab: MiniLab, prompts: list[str]) -> Tensor:
    """Return embeddings of prompts of the mini world, (prompts, 77, 768)."""
    return torch.stack([lab.embeds[prompt] for prompt in prompts])


def timed(make: Callable[[], Change]) -> Candidate:
    """Make a change and measure its processor time, because the machine may be shared."""
    start = time.process_time()
    change = make()
    return Candidate({"": change}, time.process_time() - start)


def as_change(layers: Mapping[str, LowRank], unet: torch.nn.Module) -> Change:
    """Return what a LoRA adds to the weights."""
    shapes = {name: unet.get_submodule(name).weight.shape for name in layers}
    return {f"{name}.weight": layer.delta().reshape(shapes[name]) for name, layer in layers.items()}


@contextmanager
def changed(unet: torch.nn.Module, *changes: Change) -> Iterator[None]:
    """Add changes to the weights inside the context; afterwards the weights are restored bit for bit."""
    weights = {name: unet.get_parameter(name) for change in changes for name in change}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    try:
        with torch.no_grad():
            for change in changes:
                for name, delta in change.items():
                    weights[name].add_(delta)
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name])


def _single(lab: MiniLab) -> Candidate:
    layers = {expert.categories[0]: expert.layers for expert in _experts(lab)}
    return _of_layers(lab, layers, training_s(lab))


def _all_in_one(lab: MiniLab) -> Candidate:
    return _of_layers(lab, {"": trained(lab, CATEGORIES, SEED).layers}, training_s(lab))


def _merge(lab: MiniLab, method: str) -> Candidate:
    experts, start = _experts(lab), time.process_time()
    layers = merged(lab, experts, method, 0, SEED).layers
    merge_s = time.process_time() - start
    return _of_layers(lab, {"": layers}, training_s(lab) + merge_s)


def _of_layers(lab: MiniLab, layers: Mapping[str, Mapping[str, LowRank]], train_s: float) -> Candidate:
    changes = {name: as_change(lora, lab.unet) for name, lora in layers.items()}
    return Candidate(changes, train_s, layers=layers)


def _experts(lab: MiniLab) -> list[SafetyExpert]:
    return [trained(lab, (category,), SEED) for category in CATEGORIES]


@cache
def training_s(lab: MiniLab) -> float:
    """Estimate the processor seconds of training all experts, or one LoRA for all categories.

    Both take the same number of steps. A few steps are timed, because the experts may come from an earlier
    run or from a busy machine.
    """
    data = lab.encode(lab.pairs(CATEGORIES[0]), RECIPE)
    start = time.process_time()
    train(lab.unet, data, lab.schedule, replace(RECIPE, steps=PACE_STEPS))
    return (time.process_time() - start) / PACE_STEPS * RECIPE.steps * len(CATEGORIES)
