"""Preference training and merging on the mini flow: seven experts, which layers they change, every merge.

The transformer is trained narrow and under diffusers' names; `tests/host/test_flow_draws_http.py` shows what
the wide one does in a host. Pairs, prompts and judge are those of the small world, in which a category is one
icon and words are random. The figures say nothing about Stable Diffusion 3.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from statistics import mean

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

import measurement
import merge_quality
import mini_lab
import objectives
from kept_trials import all_kept
from merge_quality import merged
from mini_lab import MiniLab, code_hash, groups_of
from training.experts.expert import SafetyExpert
from training.experts.low_rank import LowRank
from training.merging import MERGE_METHODS
from training.mini.build import build_mini
from training.mini.flow import CHANNELS, REPEATS, SHIFT, drawing
from training.mini.flow.shipped import FLOW
from training.mini.pairs import Draw, slug
from training.mini.recipe.experts import CONFIG
from training.models.conditioning import Conditioning
from training.models.network import Network
from training.models.noise import FlowSchedule
from training.pairs import SafetyPairs, load_pairs
from training.pairs.encode import Encoders
from training.rules.categories import CATEGORIES
from training.trainer.loop import train

SEED = 0
BASE, SINGLE, ANCHORED = "base", "single experts", CONFIG.objective
PUBLISHED = "as published"
ATTENTION, PICTURE_ALONE = "attention", "self-attention"
HALVES = ("up", "down")  # of a LoRA
_BLOCK = r"transformer_blocks\.\d+\."
_PICTURE = r"attn\.(?:to_[qkv]|to_out\.0)"
_TEXT = r"attn\.(?:add_[qkv]_proj|to_add_out)"
TARGETS = {  # layers that experts change -> their names; `targets` of a config is a key
    ATTENTION: f"{_BLOCK}(?:{_PICTURE}|{_TEXT})",
    PICTURE_ALONE: _BLOCK + _PICTURE,  # the layers of the text's part are left alone
    "attention+ff": rf"{_BLOCK}(?:{_PICTURE}|{_TEXT}|ff(?:_context)?\.net\.(?:0\.proj|2))",
}
FILES = (
    Path(__file__),
    *(Path(module.__file__) for module in (measurement, merge_quality, mini_lab, objectives)),
)


class NarrowFlow(Network):
    """The mini transformer, run as `training.mini.flow.drawing` runs it."""

    def __init__(self, transformer: torch.nn.Module) -> None:
        super().__init__(transformer, TARGETS)
        vars(self)["transformer"] = transformer  # not a child: its children are this module's already
        self._sigmas = FlowSchedule.shifted(SHIFT).sigmas

    @property
    def input_dtype(self) -> torch.dtype:
        """fp32, as the transformer is stored."""
        return torch.float32

    @property
    def block_list(self) -> list[torch.nn.Module]:
        """See `Network`."""
        return list(self.transformer.transformer_blocks)

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the velocity, see `Network`."""
        return drawing.predict(self.transformer, noisy, self._sigmas[timesteps], conditioning)


class FlowLab(MiniLab):
    """The small world, drawn by the mini flow."""

    latent_shape = (CHANNELS, drawing.SIDE, drawing.SIDE)
    recipe = CONFIG

    def __init__(self) -> None:
        super(MiniLab, self).__init__(FLOW, "flow")

    def network(self) -> tuple[NarrowFlow, FlowSchedule]:
        """Return the narrow transformer and the noise levels that hosts sample it at."""
        return NarrowFlow(FLOW.load_transformer()), FlowSchedule.shifted(SHIFT)

    @cached_property
    def embeds(self) -> dict[str, Conditioning]:
        """Each prompt that this lab may need, encoded, one row each; cached."""
        found: dict[str, Conditioning] = {}
        self._add(found, ["", *self.prompts()])
        return found

    def embed_more(self, prompts: Iterable[str]) -> None:
        """Encode prompts that `prompts` does not return; cached."""
        self._add(self.embeds, prompts)

    def _add(self, found: dict[str, Conditioning], prompts: Iterable[str]) -> None:
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in found]
        if not missing:
            return
        file = self.folder / f"encoded_{mini_lab.name_of(missing)}.safetensors"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            encoded = drawing.encode(missing)
            save_file({"text": encoded.text_embeds.contiguous(), "pooled": encoded.pooled}, file)
        state = load_file(file)
        rows = Conditioning(state["text"], state["pooled"])
        found.update((prompt, rows[[number]]) for number, prompt in enumerate(missing))

    def pairs(self, category: str) -> SafetyPairs:
        """Return pairs that the mini flow has drawn."""
        built = build_mini(self.folder, world="flow", categories=(category,))
        return load_pairs(built["pairs"] / slug(category))

    def calibration(self, prompts: Sequence[str]) -> Conditioning:
        """Return the conditioning of prompts, for calibration."""
        self.embed_more(prompts)
        return Conditioning.concatenate([self.embeds[prompt] for prompt in prompts])

    def draw(self) -> Draw:
        """Return a function from prompts and seeds to pictures."""
        return drawing.make_draw(self.unet.transformer, self.autoencoder, self.embeds)

    def encoders(self) -> Encoders:
        """Return the narrow encoders; each channel of a latent is there four times, as in a checkpoint."""
        return Encoders(
            image=lambda pixels: self.autoencoder.encode(pixels).latents.repeat_interleave(REPEATS, dim=1),
            prompt=lambda prompt: self.embeds[prompt],
            id="mini flow",
            latent_channels=CHANNELS,
        )


def measure() -> dict:
    """Train and merge seven experts in every way of the table, one seed; a killed run continues.

    Returns:
        Row -> IP, its worst category, and the share of safe counterparts and of neutral prompts drawn right,
        relative to the base; of single experts, the mean over the seven.
    """
    lab = _lab()
    lab.embeds  # noqa: B018  # made once, before several processes need it
    for category in tqdm(CATEGORIES, desc="pairs", file=sys.stdout):
        lab.pairs(category)
    file = lab.folder / "trials" / f"flow-{code_hash(*FILES)[:16]}.jsonl"
    results = all_kept(trial, [(BASE, "", "")] + rows(), file, lambda result: result)
    base = results.pop((BASE, "", ""))
    return {
        f"{merge}, {objective}, {targets}": relative(figures, base)
        for (merge, objective, targets), figures in results.items()
    }


def rows() -> list[tuple[str, str, str]]:
    """Return (merge, objective, layers that experts change) of each row, the slowest last."""
    return [
        (SINGLE, ANCHORED, ATTENTION),
        *((method, ANCHORED, ATTENTION) for method in MERGE_METHODS),
        (SINGLE, ANCHORED, PICTURE_ALONE),
        ("regmean", ANCHORED, PICTURE_ALONE),
        (SINGLE, ANCHORED, "attention+ff"),
        *((SINGLE, objective, PUBLISHED) for objective in objectives.PUBLISHED),
    ]


def trial(merge: str, objective: str, targets: str) -> dict[str, float]:
    """Make a row and draw all groups with it."""
    lab = _lab()
    if merge == BASE:
        return figures_of([lab.rates({}, groups_of())])
    experts = [trained(category, objective, targets) for category in CATEGORIES]
    if merge == SINGLE:
        return figures_of([lab.rates(one.layers, groups_of(one.categories)) for one in experts])
    return figures_of([lab.rates(merged(lab, experts, merge, 0, SEED).layers, groups_of())])


def trained(category: str, objective: str, targets: str) -> SafetyExpert:
    """Return the expert of a category, by the defaults or by the published recipe of another objective.

    It is trained once per state of the code.
    """
    lab = _lab()
    recipe = objectives.recipe_of(objective) if targets == PUBLISHED else replace(CONFIG, targets=targets)
    config = replace(recipe, seed=SEED)
    key = mini_lab.name_of([category, str(config), code_hash(*FILES)])
    file = lab.folder / "trained" / f"{key}.safetensors"
    if not file.exists():
        result = train(lab.unet, lab.encode(lab.pairs(category), config), lab.schedule, config)
        file.parent.mkdir(exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}")
        save_file(
            {
                f"{name}.{half}": getattr(layer, half)
                for name, layer in result.layers.items()
                for half in HALVES
            },
            unfinished,
        )
        os.replace(unfinished, file)
    state = load_file(file)
    names = dict.fromkeys(name.rpartition(".")[0] for name in state)
    layers = {name: LowRank(*(state[f"{name}.{half}"] for half in HALVES)) for name in names}
    return SafetyExpert(layers, (category,), "sd3", {}, category)


def figures_of(rates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the figures of a row from the rates of each of its models."""
    ip = [of_model[name] for of_model in rates for name in CATEGORIES if name in of_model]
    kept = {name: mean(of_model[name] for of_model in rates) for name in ("safe counterparts", "neutral")}
    return {"IP": mean(ip), "worst IP": max(ip), **kept}


def relative(figures: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float]:
    """Return the figures with what is kept as a share of the base's."""
    return {name: value if "IP" in name else value / base[name] for name, value in figures.items()}


@cache
def _lab() -> FlowLab:
    return FlowLab()
