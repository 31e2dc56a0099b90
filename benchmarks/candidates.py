"""The models that `own_table.py` and `large_world.py` compare: base, our experts, their merges, baselines.

A candidate holds the weights that it adds to a narrow mini UNet and the time needed to make them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache

import torch
from torch import Tensor

from baselines.esd import EsdConfig, train_esd
from baselines.sld import PUBLISHED, SldConfig
from baselines.uce import UceConfig, edit_uce
from merge_quality import merged, trained
from mini_lab import Lab
from training.config import DualLatentConfig, TrainConfig
from training.evaluation.attacks import ConceptDirection, ConceptPair, concept_direction
from training.experts.expert import SafetyExpert
from training.experts.low_rank import LowRank
from training.guards.dual_latent import relieved
from training.making.rewriting.term_table import TermTable
from training.merging import MERGE_METHODS
from training.models.conditioning import Conditioning
from training.pairs.training_data import TrainingData
from training.rules.categories import CATEGORIES
from training.trainer.loop import train

Change = Mapping[str, Tensor]  # parameter name -> tensor added to it

SEED = 0
ESD = {  # as published, and stopped before it damages what must be kept, see `baseline_grid`
    "ESD-u": EsdConfig(),
    "ESD-u, 40 steps": EsdConfig(steps=40, eta=3.0),
}
UCE = UceConfig()
DUAL_LATENT = DualLatentConfig()
PACE_STEPS = 20  # steps that are timed; the experts may come from an earlier run


@dataclass(frozen=True)
class Candidate:
    """A model to measure.

    Attributes:
        changes: category -> what the model adds to the base; the key "" stands for all prompts.
        train_s: processor seconds needed to make it.
        guidance: settings of SLD or of dual latent guidance; None without either.
        layers: the changes as LoRAs, under the same keys; empty if they are not LoRAs.
        context: for dual latent guidance, f(key of `changes`, prompts, their embeddings) -> embeddings of the
            safe contexts.
    """

    changes: Mapping[str, Change]
    train_s: float = 0.0
    guidance: SldConfig | DualLatentConfig | None = None
    layers: Mapping[str, Mapping[str, LowRank]] = field(default_factory=dict)
    context: Callable[[str, Sequence[str], Tensor], Tensor] | None = None

    def change(self, category: str) -> Change:
        """Return the change that acts on the prompts of a category."""
        return self.changes.get(category, self.changes.get("", {}))


def candidates(lab: Lab, seed: int = SEED) -> dict[str, Callable[[], Candidate]]:
    """Return a function that makes each candidate, by name and in the order of the table."""
    return {
        "base": lambda: Candidate({}),
        "single experts": lambda: single_experts(lab, seed),
        "all-in-one": lambda: _all_in_one(lab, seed),
        **{method: lambda method=method: merge(lab, method, seed) for method in MERGE_METHODS},
        **{
            name: lambda config=config: timed(lambda: esd(lab, replace(config, seed=seed)))
            for name, config in ESD.items()
        },
        "UCE": lambda: timed(lambda: uce(lab, UCE)),
        **{f"SLD {name}": lambda name=name: Candidate({}, 0.0, PUBLISHED[name]) for name in PUBLISHED},
    }


def esd(lab: Lab, config: EsdConfig) -> Change:
    """Erase the unsafe prompts of all pairs by ESD-u."""
    unsafe, _ = prompts_of_pairs(lab)
    return train_esd(lab.unet, texts(lab, unsafe), lab.embeds[""][None], config)


def uce(lab: Lab, config: UceConfig) -> Change:
    """Make the model read all unsafe prompts as their safe ones, and preserve the safe and the empty prompt.

    What is measured as kept, such as neutral drawings, is not among the prompts that it preserves.
    """
    unsafe, safe = prompts_of_pairs(lab)
    preserved = texts(lab, list(dict.fromkeys(["", *safe])))
    return edit_uce(lab.unet, texts(lab, unsafe), texts(lab, safe), preserved, config)


def dual_latent_by_table(lab: Lab, config: DualLatentConfig = DUAL_LATENT) -> Candidate:
    """Guide each prompt to itself with every word that its pair would change replaced.

    The table has the words of the pairs. A prompt without any of them is guided to itself, so it is drawn as
    by the base model.
    """
    table = word_table(zip(*prompts_of_pairs(lab), strict=True))

    def context(_: str, prompts: Sequence[str], embeds: Tensor) -> Tensor:
        rewritten = [table.rewrite(prompt) or prompt for prompt in prompts]
        lab.embed_more(rewritten)
        return texts(lab, rewritten)

    return Candidate({}, guidance=config, context=context)


def word_table(pairs: Iterable[tuple[str, str]]) -> TermTable:
    """Return the table that replaces a word of an unsafe prompt by the one in its place in the safe one."""
    aligned = (zip(*(re.findall(r"\w+", prompt) for prompt in pair), strict=True) for pair in pairs)
    return TermTable({unsafe: safe for words in aligned for unsafe, safe in words if unsafe != safe})


def dual_latent_by_concept(lab: Lab, config: DualLatentConfig = DUAL_LATENT) -> Candidate:
    """Guide each prompt to itself without the concept of a category, as a vector from the category's pairs.

    As an expert per category, the vector of a category acts on its prompts, and each in turn on prompts to be
    kept: no guard stands in front.
    """
    start = time.process_time()
    directions = {category: direction(lab, category) for category in CATEGORIES}

    def context(category: str, prompts: Sequence[str], embeds: Tensor) -> Tensor:
        return relieved(Conditioning(embeds), directions[category]).text_embeds

    changes: dict[str, Change] = {category: {} for category in CATEGORIES}
    return Candidate(changes, time.process_time() - start, guidance=config, context=context)


def direction(lab: Lab, category: str) -> ConceptDirection:
    """Return the concept direction of a category, from the prompts of its pairs."""
    pairs = [ConceptPair(*prompts) for prompts in lab.prompt_pairs(category)]
    return concept_direction(pairs, lambda prompt: Conditioning(lab.embeds[prompt][None]))


def prompts_of_pairs(lab: Lab) -> tuple[list[str], list[str]]:
    """Return the unsafe prompts of the pairs of all categories, and their safe prompts in the same order."""
    unsafe, safe = zip(*(pair for name in CATEGORIES for pair in lab.prompt_pairs(name)), strict=True)
    return list(unsafe), list(safe)


def texts(lab: Lab, prompts: Sequence[str]) -> Tensor:
    """Return embeddings of prompts of the lab's world, (prompts, 77, 768)."""
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


def single_experts(lab: Lab, seed: int, recipe: TrainConfig | None = None) -> Candidate:
    """Return an expert per category, trained by the lab's recipe or another one."""
    layers = {expert.categories[0]: expert.layers for expert in _experts(lab, seed, recipe)}
    return _of_layers(lab, layers, training_s(lab, recipe or lab.recipe))


def merge(lab: Lab, method: str, seed: int, recipe: TrainConfig | None = None) -> Candidate:
    """Return the experts of all categories merged, trained by the lab's recipe or another one."""
    experts, start = _experts(lab, seed, recipe), time.process_time()
    layers = merged(lab, experts, method, 0, seed).layers
    merge_s = time.process_time() - start
    return _of_layers(lab, {"": layers}, training_s(lab, recipe or lab.recipe) + merge_s)


def _all_in_one(lab: Lab, seed: int) -> Candidate:
    return _of_layers(lab, {"": trained(lab, CATEGORIES, seed).layers}, training_s(lab, lab.recipe))


def _of_layers(lab: Lab, layers: Mapping[str, Mapping[str, LowRank]], train_s: float) -> Candidate:
    changes = {name: as_change(lora, lab.unet) for name, lora in layers.items()}
    return Candidate(changes, train_s, layers=layers)


def _experts(lab: Lab, seed: int, recipe: TrainConfig | None) -> list[SafetyExpert]:
    return [trained(lab, (category,), seed, recipe) for category in CATEGORIES]


@cache
def training_s(lab: Lab, recipe: TrainConfig) -> float:
    """Estimate the processor seconds of training all experts, or one LoRA for all categories.

    Both take the same number of steps. A few steps are timed, because the experts may come from an earlier
    run or from a busy machine; what a run does before its first step is timed once.
    """
    data = lab.encode(lab.pairs(CATEGORIES[0]), recipe)
    one, several = (_seconds(lab, data, replace(recipe, steps=steps)) for steps in (1, 1 + PACE_STEPS))
    pace = (several - one) / PACE_STEPS
    return (one + pace * (recipe.steps - 1)) * len(CATEGORIES)


def _seconds(lab: Lab, data: TrainingData, config: TrainConfig) -> float:
    start = time.process_time()
    train(lab.unet, data, lab.schedule, config)
    return time.process_time() - start
