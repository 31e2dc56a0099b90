"""PEFT's configuration of a LoRA: whatever in it changes the meaning of the file, honoured or refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..system.tensors import LazyTensors
from .path_pattern import PathPatterns

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"  # PEFT's own names
MODEL_PREFIX = "base_model.model."  # of every key that PEFT writes
METADATA_KEY = "lora_adapter_metadata"  # where diffusers writes the configuration
_MAX_BYTES = 10_000_000
_MAX_NUMBER = 1e9  # also refuses NaN, infinity, and whole numbers beyond the range of fp32
_MAX_PATTERNS = 5_000  # SDXL has under a thousand layers

# Starts of training that leave the base model as it is. The others subtract their start from it, so that the
# file is only right beside the changed model.
_KEEPS_BASE = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
_OTHER_UPDATES = {  # option -> what the file then is
    "use_dora": "a DoRA",
    "use_qalora": "a QALoRA",
    "use_bdlora": "a BD-LoRA",
    "kasa_config": "a KaSA adapter",
    "monteclora_config": "a MonteCLoRA",
    "arrow_config": "an Arrow router",
    "alora_invocation_tokens": "an activated LoRA",
    "layer_replication": "a LoRA of a model with repeated layers",
    "target_parameters": "a LoRA of parameters instead of layers",
}


class PeftConfig:
    """The scale of each layer of a file according to PEFT's LoraConfig.

    Args:
        config: LoraConfig as a dict. What is missing is not checked; without `lora_alpha` the scale is 1.

    Raises:
        ValueError: if the configuration is of another method than plain LoRA, its training changed the base
            model, or a value has another form than PEFT writes.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        _refuse_other_method(config)
        self._ranks = _Table(config, "rank_pattern", "r")
        self._alphas = _Table(config, "alpha_pattern", "lora_alpha")
        self._is_stabilised = bool(config.get("use_rslora"))
        targets = config.get("target_modules")
        self._targets = targets if isinstance(targets, list) and targets else None  # PEFT: or an expression

    def scale(self, path: str, rank: int) -> float:
        """Return alpha / rank of a layer, or rsLoRA's alpha / sqrt(rank) (arXiv:2312.03732).

        Args:
            path: of the layer, as PEFT saw it when it wrote the file.
            rank: of the factors in the file.

        Raises:
            ValueError: if the configuration is not that of this file.
        """
        stated = self._ranks.value(path)
        if stated is not None and stated != rank:
            raise ValueError(
                f"its PEFT configuration gives {path} rank {stated:g}, but the file holds rank {rank}, so it "
                f"belongs to another file. Put the {CONFIG_NAME} of this file beside it."
            )
        if self._targets and not any(f".{path}".endswith(f".{target}") for target in self._targets):
            raise ValueError(
                f"its PEFT configuration does not name {path} among its target_modules, so it belongs to "
                f"another file. Put the {CONFIG_NAME} of this file beside it."
            )
        alpha = self._alphas.value(path)
        if alpha is None:
            return 1.0
        return alpha / (rank**0.5 if self._is_stabilised else rank)


class _Table:
    """A number for each layer: that of the first expression that matches it, or the general one."""

    def __init__(self, config: Mapping[str, Any], name: str, general: str) -> None:
        patterns = config.get(name) or {}
        if not isinstance(patterns, Mapping) or len(patterns) > _MAX_PATTERNS:
            shown = f"{len(patterns)} entries" if isinstance(patterns, Mapping) else repr(patterns)[:80]
            raise ValueError(
                f"{name} must name layers and their numbers, at most {_MAX_PATTERNS:,} of them, got {shown}."
            )
        self._numbers = {text: _number(f"{name}'s {text[:80]}", value) for text, value in patterns.items()}
        self._patterns = PathPatterns(name, list(patterns))
        self._general = None if config.get(general) is None else _number(general, config[general])
        self._found: dict[str, float | None] = {}

    def value(self, path: str) -> float | None:
        if path not in self._found:
            text = self._patterns.first_match(path)
            self._found[path] = self._general if text is None else self._numbers[text]
        return self._found[path]


def read_peft_config(path: Path, state: LazyTensors) -> dict[str, Any]:
    """Return the configuration of a LoRA file; empty if it has none.

    It is in the file's metadata if diffusers wrote it, and beside the file if PEFT did. PEFT names its
    weights `adapter_model.safetensors`; if that file is there too, the configuration belongs to it.

    Raises:
        ValueError: if the configuration cannot be read.
    """
    text = state.metadata.get(METADATA_KEY)
    beside = path.with_name(CONFIG_NAME)
    is_own = path.name == WEIGHTS_NAME or not path.with_name(WEIGHTS_NAME).exists()
    try:
        if text is None and is_own and beside.is_file() and any(MODEL_PREFIX in key for key in state):
            if beside.stat().st_size > _MAX_BYTES:
                raise ValueError(f"{beside.stat().st_size:,} bytes")
            text = beside.read_text(encoding="utf-8-sig")
        config = json.loads(text or "{}")
        return {key.removeprefix("unet."): value for key, value in config.items()}
    except (ValueError, AttributeError, RecursionError, OSError) as error:
        raise ValueError(
            f"its PEFT configuration is not readable ({error}). Download it again with its {CONFIG_NAME}."
        ) from error


def _refuse_other_method(config: Mapping[str, Any]) -> None:
    method = config.get("peft_type")
    if method not in (None, "LORA"):
        raise ValueError(f"PEFT wrote it as {str(method)[:40]}. Only plain LoRA is supported.")
    other = next((kind for option, kind in _OTHER_UPDATES.items() if config.get(option)), None)
    if other:
        raise ValueError(f"PEFT wrote it as {other}. Only plain LoRA is supported.")
    start = config.get("init_lora_weights")
    if not any(start is known or (isinstance(start, str) and start == known) for known in _KEEPS_BASE):
        raise ValueError(
            f"its training began with init_lora_weights={str(start)[:40]!r}, which changes the base model "
            "too, so the file alone does not say what was learned. Save it from PEFT with "
            "path_initial_model_for_weight_conversion, which makes a plain LoRA of it."
        )


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _MAX_NUMBER:
        raise ValueError(f"{name} must be a number, got {repr(value)[:80]}.")
    return value
