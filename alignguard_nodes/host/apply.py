"""Apply a safety expert to a MODEL as the stock LoRA loader applies a LoRA."""

import logging
from typing import Any

import comfy.hooks
import comfy.lora
import comfy.patcher_extension

from ...training.experts.expert import SafetyExpert, check_family
from ...training.experts.layer_names import kohya_name
from ...training.experts.lora_keys import Coverage, coverage, to_kohya
from .unet import family_of

log = logging.getLogger(__name__)


def apply_expert(
    model: Any, expert: SafetyExpert, *, strength: float, start_percent: float = 0.0, end_percent: float = 1.0
) -> tuple[Any, str]:
    """Return a MODEL with the expert applied, and a sentence about the outcome.

    Over the whole range the weights are patched as by the stock LoRA loader, to the same bits.

    Args:
        model: MODEL; it is not changed.
        expert: the expert.
        strength: factor of the update; 0 returns the model unchanged.
        start_percent: share of the sampling after which the expert is switched on, in [0, end_percent).
        end_percent: share of the sampling after which it is switched off, at most 1.

    Raises:
        ValueError: if the range is empty, the expert is for another family, or no layer matches.
    """
    check_range(start_percent, end_percent)
    if strength == 0:
        return model, "Strength 0: the model is unchanged."
    check_family(expert, *family_of(model))
    patches, covered = _patches(model, expert)
    if not covered.matched:
        raise ValueError(
            f"{expert.name}: {covered.sentence()} Load a checkpoint of the family it was trained for."
        )
    if covered.missing:
        log.warning("%s: %s", expert.name, covered.sentence())
    patched = model.clone()
    if (start_percent, end_percent) == (0, 1):
        patched.add_patches(patches, strength)
    else:
        _add_scheduled(patched, patches, strength, start_percent, end_percent)
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


def _patches(model: Any, expert: SafetyExpert) -> tuple[dict, Coverage]:
    """Return the host's patches of the layers that the model has in the same shape, and the coverage."""
    targets = _targets(model, expert)
    state = to_kohya({module: expert.layers[module] for module in targets})
    patches = comfy.lora.load_lora(state, {kohya_name(module): key for module, key in targets.items()})
    return patches, coverage(expert.layers, targets)


def _targets(model: Any, expert: SafetyExpert) -> dict[str, str]:
    """Return the host's key of each layer of the expert that the model has in the same shape."""
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    shapes = {key: weight.shape for key, weight in model.model.state_dict().items()}
    targets = {}
    for module, layer in expert.layers.items():
        key = keys.get(kohya_name(module))
        shape = shapes.get(key)
        if shape and (shape[0], shape[1:].numel()) == (layer.d_out, layer.d_in):
            targets[module] = key
    return targets


def _add_scheduled(model: Any, patches: dict, strength: float, start: float, end: float) -> None:
    """Switch the patches by the host's weight hooks, on every conditioning of a sampling run."""
    hook = comfy.hooks.WeightHook()
    model.add_hook_patches(hook, patches, strength)

    def sample(executor: Any, *args: Any, **kwargs: Any) -> Any:
        current = hook.clone()
        current.hook_keyframe = _keyframes(start, end)  # new for each run: keyframes keep their position
        group = comfy.hooks.HookGroup()
        group.add(current)
        combined = {None: group}
        for conds in executor.class_obj.conds.values():
            for cond in conds:
                hooks = cond.get("hooks")
                if hooks not in combined:
                    combined[hooks] = hooks.clone_and_combine(group)
                cond["hooks"] = combined[hooks]
        return executor(*args, **kwargs)

    model.add_wrapper(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, sample)


def _keyframes(start: float, end: float) -> comfy.hooks.HookKeyframeGroup:
    frames = comfy.hooks.HookKeyframeGroup()
    switches = [(0.0, 0.0)] * (start > 0) + [(1.0, start)] + [(0.0, end)] * (end < 1)
    for factor, percent in switches:
        frames.add(comfy.hooks.HookKeyframe(factor, percent, guarantee_steps=0))
    return frames
