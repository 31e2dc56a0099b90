"""Read the layers of a LoRA file in any dialect, one at a time or all at once."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from .convolutions import as_matrix, with_middle
from .lora_keys import group_keys, split_key
from .low_rank import LowRank
from .peft_config import MODEL_PREFIX, PeftConfig


class LoraLayers(Mapping[str, LowRank]):
    """The layers of a LoRA by diffusers path, sorted; each access reads the layer from the state again.

    The scale is folded into `up` once. It is alpha / rank if the file holds an alpha. Otherwise PEFT's
    configuration decides, see `PeftConfig`; without one it is 1, as in all hosts. A layer is an fp32 copy on
    the CPU.

    Args:
        state: keys as in the file; factors (rank, d_in) and (d_out, rank), 4-D for convolutions. If the
            mapping reads lazily, no tensor is read before a layer is accessed, and none if a key is refused.
        peft_config: PEFT's LoraConfig as a dict.

    Attributes:
        left_out: kind -> number of tensors of the state that are not LoRA layers of the UNet.

    Raises:
        ValueError: see `group_keys` and `PeftConfig`; and, when a layer is accessed, if its factors do not
            fit each other or the configuration.
    """

    def __init__(self, state: Mapping[str, Tensor], *, peft_config: Mapping[str, Any] | None = None) -> None:
        grouped, self.left_out = group_keys(state)
        self._keys = {module: grouped[module] for module in sorted(grouped)}
        self._state, self._peft = state, PeftConfig(peft_config or {})

    def __getitem__(self, module: str) -> LowRank:
        return _layer(module, self._keys[module], self._state, self._peft)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def convolutional_projections(self) -> list[str]:
        """Return entries and exits of transformers whose factors are 4-D in the file, as in SD 1.5 only."""
        projections = [module for module in self._keys if module.endswith((".proj_in", ".proj_out"))]
        return [module for module in projections if self._state[self._keys[module]["up"]].ndim == 4]


def parse_lora(
    state: Mapping[str, Tensor], *, peft_config: Mapping[str, Any] | None = None
) -> dict[str, LowRank]:
    """Return all layers of a LoRA as copies that do not depend on the state; see `LoraLayers`."""
    return dict(LoraLayers(state, peft_config=peft_config))


def _layer(module: str, keys: Mapping[str, str], state: Mapping[str, Tensor], peft: PeftConfig) -> LowRank:
    up = as_matrix(module, state[keys["up"]], is_down=False)
    if "mid" in keys:
        down = with_middle(module, state[keys["mid"]], state[keys["down"]])
    else:
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
        path = split_key(keys["up"])[0]  # as PEFT saw it
        path = path.rpartition(MODEL_PREFIX)[2] if MODEL_PREFIX in path else path.removeprefix("unet.")
        scale = peft.scale(path, layer.rank)
    return layer if scale == 1 else layer.scaled(scale)
