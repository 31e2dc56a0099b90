"""From a fully tuned model to an expert: the difference to its base, layer by layer, as a LoRA."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..config import ExtractConfig
from ..models.hashes import WeightsDigest
from ..models.noise import named_generator
from ..models.unet_file import UnetFile
from ..rules.categories import FAMILY_NAMES, normalize_categories
from .expert import SafetyExpert
from .factor import Factored, factor, rounding_variance, squared_norm
from .lora_keys import is_layer
from .low_rank import LowRank


@dataclass(eq=False)
class Outcome:
    """What comparing two models found.

    Attributes:
        base: of all weights before.
        tuned: of all weights after.
        layers: per changed layer, without its update.
        left_out: squared change of each tensor that a LoRA cannot hold.
    """

    base: WeightsDigest
    tuned: WeightsDigest
    layers: dict[str, Factored] = field(default_factory=dict)
    left_out: dict[str, float] = field(default_factory=dict)


def provenance(outcome: Outcome, config: ExtractConfig, *, base: str, tuned: str) -> dict[str, str]:
    """State both models, the options, and where the squared change went: shares that add up to 1.

    Args:
        outcome: of all tensors.
        config: options of the extraction.
        base: name of the base model.
        tuned: name of the tuned model.
    """
    found = outcome.layers.values()
    left_out = math.fsum(outcome.left_out.values())
    total = math.fsum(layer.total for layer in found) + left_out
    kept = math.fsum(layer.kept for layer in found)
    rounding = math.fsum(layer.rounding for layer in found)
    shares = {"kept": kept, "rounding": rounding, "left_out": left_out}
    shares["cut"] = max(0.0, total - kept - rounding - left_out)
    models = [
        {"name": base, "hash": outcome.base.hexdigest()},
        {"name": tuned, "hash": outcome.tuned.hexdigest()},
    ]
    return {
        "alignguard.extracted_from": json.dumps(dict(zip(("base", "tuned"), models, strict=True))),
        "alignguard.base_hash": models[0]["hash"],
        "alignguard.extract_rank": str(config.rank),
        "alignguard.extract_energy": f"{config.energy:g}",
        "alignguard.change": json.dumps({name: round(value / total, 6) for name, value in shares.items()}),
        "alignguard.kept_energy_per_layer": json.dumps(
            {module: round(layer.kept / layer.total, 4) for module, layer in outcome.layers.items()}
        ),
        "alignguard.not_representable": json.dumps(
            {name: float(f"{math.sqrt(squared):.4g}") for name, squared in outcome.left_out.items()}
        ),
    }


__all__ = ["extract_expert"]


def extract_expert(
    base: Path,
    tuned: Path,
    config: ExtractConfig,
    *,
    categories: str | Iterable[str] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> SafetyExpert:
    """Turn what tuning changed in the UNet into an expert; one pair of tensors is in memory at a time.

    Both may be single files under the original names, UNets alone, or folders of diffusers, sharded or
    not, in any mixture. Every linear layer and convolution is approximated; norms and biases have no
    place in a LoRA, and are named in the metadata with the size of their change.

    Args:
        base: what was tuned, as exactly as it is to be had.
        tuned: the result.
        config: rank and energy.
        categories: what the tuning protects from; a file rarely says.
        on_progress: called with (tensors done, tensors); what it raises ends the work.

    Returns:
        The expert, named after the tuned model. The same files give the same bytes.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: naming the files, if one cannot be read as a UNet (see `UnetFile`), they are not of one
            line and size, nothing was changed, or only what a LoRA cannot hold.
    """
    categories = normalize_categories(categories)
    before, after = UnetFile(base), UnetFile(tuned)
    _check_pair(before, after)
    outcome = Outcome(WeightsDigest(), WeightsDigest())
    layers: dict[str, LowRank] = {}
    for done, name in enumerate(sorted(before.shapes), start=1):  # the order that weights are hashed in
        update = _compare(before, after, name, config, outcome)
        if update is not None:
            layers[name.removesuffix(".weight")] = update
        if on_progress:
            on_progress(done, len(before.shapes))
    _check_changed(layers, outcome, before, after)
    metadata = provenance(outcome, config, base=before.name, tuned=after.name)
    return SafetyExpert(layers, categories, before.family, metadata, f"extracted from {after.name}")


def _compare(
    before: UnetFile, after: UnetFile, name: str, config: ExtractConfig, outcome: Outcome
) -> LowRank | None:
    """Return the update of one layer, if it changed and can be one; the outcome takes down everything."""
    old, new = before.tensor(name), after.tensor(name)
    outcome.base.add(name, old)
    outcome.tuned.add(name, new)
    change = new.to(torch.float32, copy=True).sub_(old)
    if not bool(change.isfinite().all()):
        raise ValueError(f"{name} holds values that are not finite. Use other files.")
    if not bool(change.count_nonzero()):
        return None
    module = name.removesuffix(".weight")
    if change.ndim < 2 or not is_layer(module):
        outcome.left_out[name] = squared_norm(change)
        return None
    variance = rounding_variance(old, new, change)
    found = factor(change.flatten(1), variance, config, named_generator(f"extract/{module}"))
    outcome.layers[module] = found._replace(update=None)
    return found.update


def _check_pair(before: UnetFile, after: UnetFile) -> None:
    if before.family != after.family:
        one, other = (FAMILY_NAMES[each.family] for each in (before, after))
        raise ValueError(
            f"{before.name} is {one}, but {after.name} is {other}. Choose the model that was tuned as base."
        )
    names = sorted(before.shapes.keys() ^ after.shapes.keys())
    if names:
        owner = before if names[0] in before.shapes else after
        raise ValueError(
            f"{before.name} and {after.name} are of different build: {len(names)} tensors are in one only, "
            f"such as {names[0]} in {owner.name}. Choose the model that was tuned as base."
        )
    for name, shape in before.shapes.items():
        if shape != after.shapes[name]:
            raise ValueError(
                f"{name} is {shape} in {before.name}, but {after.shapes[name]} in {after.name}. "
                "Choose the model that was tuned as base."
            )


def _check_changed(layers: dict[str, LowRank], outcome: Outcome, before: UnetFile, after: UnetFile) -> None:
    if layers:
        return
    if not outcome.layers and not outcome.left_out:
        raise ValueError(
            f"the UNets of {before.name} and {after.name} hold equal weights, so nothing can be extracted. "
            "Choose the base model and a model that was tuned from it."
        )
    raise ValueError(
        f"{after.name} differs from {before.name} in {len(outcome.left_out)} norms and biases, and in "
        f"{len(outcome.layers)} layers by no more than the rounding of the stored weights; a LoRA would hold "
        "nothing. Use both models in fp32, if there are such files."
    )
