"""Read the layers of a LoRA file in any dialect, one at a time or all at once."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from .convolutions import as_matrix
from .lora_keys import group_keys
from .low_rank import LowRank


class LoraLayers(Mapping[str, LowRank]):
    """The layers of a LoRA by diffusers path, sorted; each access reads the layer from the state again.

    The scale is folded into `up` once. It is alpha / rank if the file holds an alpha. Otherwise PEFT's
    configuration decides, if there is one, including rsLoRA's alpha / sqrt(rank) (Kalajdzievski 2023,
    arXiv:2312.03732). Otherwise it is 1, as in all hosts. A layer is an fp32 copy on the CPU.

    Args:
        state: keys as in the file; factors (rank, d_in) and (d_out, rank), 4-D for convolutions. If the
            mapping reads lazily, no tensor is read before a layer is accessed, and none if a key is refused.
        peft_config: PEFT's LoraConfig as a dict: `lora_alpha`, `use_rslora`, `alpha_pattern`.

    Raises:
        ValueError: see `group_keys`; and, when a layer is accessed, if its factors do not fit each other.
    """

    def __init__(self, state: Mapping[str, Tensor], *, peft_config: Mapping[str, Any] | None = None) -> None:
        grouped = group_keys(state)
        self._keys = {module: grouped[module] for module in sorted(grouped)}
        self._state, self._peft_config = state, peft_config

    def __getitem__(self, module: str) -> LowRank:
        return _layer(module, self._keys[module], self._state, self._peft_config)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def parse_lora(
    state: Mapping[str, Tensor], *, peft_config: Mapping[str, Any] | None = None
) -> dict[str, LowRank]:
    """Return all layers of a LoRA as copies that do not depend on the state; see `LoraLayers`."""
    return dict(LoraLayers(state, peft_config=peft_config))


def _layer(
    module: str, keys: Mapping[str, str], state: Mapping[str, Tensor], peft_config: Mapping[str, Any] | None
) -> LowRank:
    up = as_matrix(module, state[keys["up"]], is_down=False)
    down = as_matrix(module, state[keys["down"]], is_down=True)
    try:
        layer = LowRank(up, down)
    except ValueError as error:
        raise ValueError(f"{module}: {error}") from error
    if "alpha" in keys:
        alpha = state[keys["alpha"]]
        if alpha.numel() != 1:
            raise ValueError(f"{keys['alpha']} must be one number, got shape {tuple(alpha.shape)}.")
        scale = float(alpha) / layer.rank
    else:
        scale = _peft_scale(peft_config or {}, module, layer.rank)
    return layer if scale == 1 else layer.scaled(scale)


def _peft_scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    # alpha_pattern's keys are matched as path endings, not as PEFT's regular expressions, because a
    # file is not trusted: a hostile expression can run for years.
    pattern = config.get("alpha_pattern") or {}
    if not isinstance(pattern, Mapping):
        raise ValueError(f"alpha_pattern must name layers and their alphas, got {pattern!r}.")
    key = next((key for key in pattern if f".{module}".endswith(f".{key}")), None)
    alpha = config.get("lora_alpha") if key is None else pattern[key]
    if alpha is None:
        return 1.0
    if not isinstance(alpha, (int, float)):
        name = "lora_alpha" if key is None else f"alpha_pattern's {key}"
        raise ValueError(f"{name} must be a number, got {alpha!r}.")
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)
