"""Extract an expert from a fully tuned model: the difference to its base, layer by layer, as a LoRA."""

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
from ..models.other_parts import (
    OtherParts,
    PartChange,
    compare_parts,
    num_comparisons,
    other_parts_sentence,
)
from ..models.unet_file import UnetFile
from ..rules.categories import FAMILY_NAMES, normalize_categories
from .change_facts import CHANGE, EXTRACTED_FROM, LAYERS, NOT_REPRESENTABLE, OTHER_PARTS
from .expert import SafetyExpert
from .factor import Factored, arithmetic_variance, factor, rounding_variance, squared_norm
from .layer_names import is_layer
from .low_rank import LowRank


def extract_expert(
    base: Path,
    tuned: Path,
    config: ExtractConfig,
    *,
    categories: str | Iterable[str] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> SafetyExpert:
    """Turn what tuning changed in the UNet into an expert; one pair of tensors is in memory at a time.

    Both models may be single files with the original names, UNets alone, or folders of diffusers, sharded or
    not, in any mixture. Every linear layer and convolution is approximated. Norms and biases cannot be part
    of a LoRA; the metadata names them with the size of their change. Text encoders, VAE and all other tensors
    are compared too, and the metadata says what of them differs.

    Args:
        base: the model before tuning, as close to the original base as available.
        tuned: the model after tuning.
        config: rank and energy.
        categories: what the tuned model protects from; its file rarely states it.
        on_progress: called with (tensors done, tensors); an exception raised by it ends the work.

    Returns:
        The expert, named after the tuned model. The same files give the same bytes.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: naming the files, if one cannot be read as a UNet (see `UnetFile`), their families or
            sizes differ, nothing was changed, or only what a LoRA cannot hold.
    """
    categories = normalize_categories(categories)
    before, after = UnetFile(base), UnetFile(tuned)
    _check_pair(before, after)
    parts = OtherParts(base), OtherParts(tuned)
    steps = _Steps(len(before.shapes) + num_comparisons(*parts), on_progress)
    comparison = _Comparison()
    layers: dict[str, LowRank] = {}
    for name in sorted(before.shapes):  # the order that weights are hashed in
        update = _compare(before, after, name, config, comparison)
        if update is not None:
            layers[name.removesuffix(".weight")] = update
        steps.advance()
    comparison.others = compare_parts(*parts, on_tensor=steps.advance)
    if not layers:
        raise ValueError(_reason_for_no_layers(comparison, before, after))
    metadata = comparison.metadata(config, base=before.name, tuned=after.name)
    return SafetyExpert(layers, categories, before.family, metadata, f"extracted from {after.name}")


@dataclass
class _Steps:
    """Counts tensors for `on_progress`."""

    total: int
    on_progress: Callable[[int, int], None] | None
    done: int = 0

    def advance(self) -> None:
        """Report one more tensor."""
        self.done += 1
        if self.on_progress:
            self.on_progress(self.done, self.total)


@dataclass(eq=False)
class _Comparison:
    """The result of comparing two models, tensor by tensor.

    Attributes:
        base: digest of all weights before tuning.
        tuned: digest of all weights after tuning.
        layers: per changed layer, without its update.
        left_out: squared change of each tensor that a LoRA cannot hold.
        others: how the parts besides the UNet differ, see `compare_parts`.
    """

    base: WeightsDigest = field(default_factory=WeightsDigest)
    tuned: WeightsDigest = field(default_factory=WeightsDigest)
    layers: dict[str, Factored] = field(default_factory=dict)
    left_out: dict[str, float] = field(default_factory=dict)
    others: dict[str, PartChange | None] = field(default_factory=dict)

    def metadata(self, config: ExtractConfig, *, base: str, tuned: str) -> dict[str, str]:
        """State both models, the options, and where the squared change went, in shares that add up to 1.

        Args:
            config: options of the extraction.
            base: name of the base model.
            tuned: name of the tuned model.
        """
        left_out = math.fsum(self.left_out.values())
        total = math.fsum(layer.total for layer in self.layers.values()) + left_out
        kept = math.fsum(layer.kept for layer in self.layers.values())
        rounding = math.fsum(layer.rounding for layer in self.layers.values())
        shares = {"kept": kept, "rounding": rounding, "left_out": left_out}
        shares["cut"] = max(0.0, total - kept - rounding - left_out)
        models = {
            "base": {"name": base, "hash": self.base.hexdigest()},
            "tuned": {"name": tuned, "hash": self.tuned.hexdigest()},
        }
        return {
            EXTRACTED_FROM: json.dumps(models),
            "alignguard.base_hash": models["base"]["hash"],
            "alignguard.extract_rank": str(config.rank),
            "alignguard.extract_energy": f"{config.energy:g}",
            CHANGE: json.dumps({name: round(value / total, 6) for name, value in shares.items()}),
            LAYERS: json.dumps({module: _shares(layer, total) for module, layer in self.layers.items()}),
            NOT_REPRESENTABLE: json.dumps(
                {name: float(f"{math.sqrt(squared):.4g}") for name, squared in self.left_out.items()}
            ),
            OTHER_PARTS: other_parts_sentence(self.others),
        }


def _shares(layer: Factored, total: float) -> list[float]:
    """Return a layer's share of the total change; of that, what is kept, and what rounding explains."""
    inside = (round(value / layer.total, 4) for value in (layer.kept, layer.rounding))
    return [float(f"{layer.total / total:.4g}"), *inside]


def _compare(
    before: UnetFile, after: UnetFile, name: str, config: ExtractConfig, comparison: _Comparison
) -> LowRank | None:
    """Add one tensor to the comparison; return its update if it changed and a LoRA can hold the change."""
    old, new = before.tensor(name), after.tensor(name)
    comparison.base.add(name, old)
    comparison.tuned.add(name, new)
    change = new.to(torch.float32, copy=True).sub_(old)
    if not bool(change.isfinite().all()):
        owner = after if bool(old.isfinite().all()) else before
        raise ValueError(f"{name} in {owner.name} has values that are not finite. Use another file.")
    if not bool(change.count_nonzero()):
        return None
    module = name.removesuffix(".weight")
    if change.ndim < 2 or not is_layer(module):
        comparison.left_out[name] = squared_norm(change)
        return None
    variance = rounding_variance(old, new, change)
    generator = named_generator(f"extract/{module}")
    least = arithmetic_variance(new)
    factored = factor(change.flatten(1), variance, config, generator, least_variance=least)
    comparison.layers[module] = factored._replace(update=None)
    return factored.update


def _check_pair(before: UnetFile, after: UnetFile) -> None:
    if before.family != after.family:
        raise ValueError(
            f"{before.name} is {FAMILY_NAMES[before.family]}, but {after.name} is "
            f"{FAMILY_NAMES[after.family]}. Choose the model that was tuned as base."
        )
    names = sorted(before.shapes.keys() ^ after.shapes.keys())
    if names:
        owner = before if names[0] in before.shapes else after
        raise ValueError(
            f"{before.name} and {after.name} have different layers: {len(names)} tensors are in only one of "
            f"them, such as {names[0]} in {owner.name}. Choose the model that was tuned as base."
        )
    for name, shape in before.shapes.items():
        if shape != after.shapes[name]:
            raise ValueError(
                f"{name} is {shape} in {before.name}, but {after.shapes[name]} in {after.name}. "
                "Choose the model that was tuned as base."
            )


def _reason_for_no_layers(comparison: _Comparison, before: UnetFile, after: UnetFile) -> str:
    if not comparison.layers and not comparison.left_out:
        return (
            f"the UNets of {before.name} and {after.name} hold equal weights, so there is nothing to "
            f"extract. Besides the UNet: {other_parts_sentence(comparison.others)}. An expert only holds "
            "layers of the UNet; choose the base model and a model whose UNet was tuned from it."
        )
    return (
        f"{after.name} differs from {before.name} in {len(comparison.left_out)} norms and biases, and in "
        f"{len(comparison.layers)} layers by no more than the rounding of the stored weights, so a LoRA "
        "would hold nothing. Use both models in fp32, if such files exist."
    )
