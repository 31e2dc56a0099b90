"""Apply a safety expert to a MODEL as the stock LoRA loader applies a LoRA."""

import logging
from typing import Any

import comfy.lora
import comfy.utils

from ...training.experts.expert import SafetyExpert, check_family, check_size
from ...training.experts.layer_names import name_in_files
from ...training.experts.lora_keys import Coverage, coverage, to_file
from .ranged import add_ranged
from .unet import family_of

log = logging.getLogger(__name__)


def apply_expert(
    model: Any, expert: SafetyExpert, *, strength: float, start_percent: float = 0.0, end_percent: float = 1.0
) -> tuple[Any, str]:
    """Return a MODEL with the expert applied, and a sentence about the outcome.

    Over the whole range the weights are patched as by the stock LoRA loader, to the same bits. On a part of
    it the outputs of the layers are changed, which differs from the host's own hooks by rounding only.

    Args:
        model: MODEL; it is not changed.
        expert: the expert.
        strength: factor of the update; 0 returns the model unchanged.
        start_percent: share of the sampling after which the expert is switched on, in [0, end_percent).
        end_percent: share of the sampling after which it is switched off, at most 1.

    Raises:
        ValueError: if the range is empty, the expert is for another family, no layer matches, or its update
            is absurdly large, see `check_size`.
    """
    check_range(start_percent, end_percent)
    if strength == 0:
        return model, "Strength 0: the model is unchanged."
    check_family(expert, *family_of(model))
    check_size(expert.name, expert.layers)
    targets = _targets(model, expert)
    covered = coverage(expert.layers, targets)
    if not covered.matched:
        raise ValueError(
            f"{expert.name}: {covered.sentence()} Load a checkpoint of the family it was trained for."
        )
    if covered.missing:
        log.warning("%s: %s", expert.name, covered.sentence())
    patched = model.clone()
    if (start_percent, end_percent) == (0, 1):
        patched.add_patches(_patches(expert, targets), strength)
    else:
        layers = {key: expert.layers[module] for module, key in targets.items()}
        add_ranged(patched, layers, strength, start_percent, end_percent)
    return patched, covered.sentence()


def check_range(start_percent: float, end_percent: float) -> None:
    """Check that an expert acts on some part of the sampling.

    Raises:
        ValueError: if the start is not below the end, or one of them is not in [0, 1].
    """
    if not 0 <= start_percent < end_percent <= 1:
        raise ValueError(
            "start_percent must be below end_percent, both in [0, 1], "
            f"got {start_percent:g} and {end_percent:g}."
        )


def layers_on(model: Any, expert: SafetyExpert) -> Coverage:
    """Return which layers of an expert a MODEL has in the same shape."""
    return coverage(expert.layers, _targets(model, expert))


def _patches(expert: SafetyExpert, targets: dict[str, str]) -> dict:
    """Return the host's patches of the layers that the model has in the same shape."""
    state = to_file({module: expert.layers[module] for module in targets}, expert.family)
    return comfy.lora.load_lora(state, {name_in_files(module): key for module, key in targets.items()})


def _targets(model: Any, expert: SafetyExpert) -> dict[str, str]:
    """Return the host's key of each layer of the expert that the model has in the same shape."""
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    targets = {}
    for module, layer in expert.layers.items():
        key = keys.get(name_in_files(module))
        # of the weight itself: the state of a quantised one may hold two values in each element
        shape = comfy.utils.get_attr(model.model, key).shape if isinstance(key, str) else ()
        if shape and (shape[0], shape[1:].numel()) == (layer.d_out, layer.d_in):
            targets[module] = key
    return targets
