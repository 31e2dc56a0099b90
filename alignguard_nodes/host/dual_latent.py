"""Guide every sampling run of a MODEL towards a safe context, beside the prompt that its sampler is given.

The host itself averages the predictions of several conditionings by their strengths, each within its range of
steps. So a run only gets another list of them. Whatever works with several prompts works with this: sizes of
SDXL, areas, masks, ControlNets, hooks, and patches of other packs.
"""

from typing import Any

import comfy.sampler_helpers
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...training.config import DualLatentConfig

_KEY = "alignguard_dual_latent"
_POSITIVE = "positive"
_WITHOUT_CONTENT = ("negative", "empty_negative_prompt")  # conditionings that ask for nothing to be drawn


def guide_to(model: Any, safe: Any, config: DualLatentConfig) -> Any:
    """Return a MODEL whose sampling is guided towards a safe context.

    Args:
        model: MODEL; it is not changed.
        safe: CONDITIONING of the safe context. If it has one entry, everything that it does not state (area,
            ControlNet, range of steps) is taken from each entry of the sampler's positive.
        config: weight and start; at weight 1 and start 0 the safe context is drawn, to the same bits.

    Raises:
        ValueError: if the safe context carries hooks, which the host would drop.
    """
    for _, extra in safe:
        control = extra.get("control")
        if extra.get("hooks") or (control is not None and control.get_extra_hooks()):
            raise ValueError(
                "the safe context carries hooks (a LoRA on a conditioning), which have no effect there. "
                "Connect it directly from CLIP Text Encode, and put hooks on the sampler's positive."
            )
    guided = model.clone()
    guided.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, _KEY, SafeGuidance(safe, config))
    return guided


class SafeGuidance:
    """Wraps a sampling run of the host; see `guide_to`."""

    def __init__(self, safe: Any, config: DualLatentConfig):
        self._safe, self._config = safe, config

    def content_facts(self) -> list[Any]:
        """Return what identifies it, wherever the pack is installed."""
        return [_KEY, self._config.weight, self._config.start, self._safe]

    def __call__(self, executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Run the sampling with guidance; the arguments are those of the guider's `outer_sample`."""
        guider = executor.class_obj
        others = sorted(guider.conds.keys() - {_POSITIVE, *_WITHOUT_CONTENT})
        if others or _POSITIVE not in guider.conds:
            raise ValueError(
                f"the guider {type(guider).__name__} draws {' and '.join(others) or 'no positive prompt'}, "
                "but Dual Latent Guidance guides the prompt `positive` alone. Use KSampler or CFGGuider, or "
                "remove the node."
            )
        positive = guider.conds[_POSITIVE]  # the guider's list of this run; its own copy stays unchanged
        guider.conds[_POSITIVE] = _guided(positive, _entries(self._safe, positive), self._config)
        return executor(*args, **kwargs)


def _entries(safe: Any, positive: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries of the safe context as the host keeps them during a run."""
    converted = comfy.sampler_helpers.convert_cond(safe)
    if len(converted) > 1:  # it has areas or ranges of its own
        return converted
    return [entry | converted[0] for entry in positive]


def _guided(
    positive: list[dict[str, Any]], safe: list[dict[str, Any]], config: DualLatentConfig
) -> list[dict[str, Any]]:
    """Return the prompt alone up to the start, and from there prompt and safe context by their weights."""
    parts = [
        *(_limited(entry, 0.0, config.start, 1.0) for entry in positive),
        *(_limited(entry, config.start, 1.0, 1 - config.weight) for entry in positive),
        *(_limited(entry, config.start, 1.0, config.weight) for entry in safe),
    ]
    return [part for part in parts if part is not None]


def _limited(entry: dict[str, Any], start: float, end: float, weight: float) -> dict[str, Any] | None:
    """Return an entry on a part of the sampling with a share of its strength; None if nothing is left."""
    first = max(start, entry.get("start_percent", 0.0))
    last = min(end, entry.get("end_percent", 1.0))
    if weight == 0 or first >= last:
        return None
    limited = {**entry, "strength": entry.get("strength", 1.0) * weight}
    if first > 0:
        limited["start_percent"] = first
    if last < 1:
        limited["end_percent"] = last
    return limited
