"""A safety expert: the LoRA of one or more categories of harm, as a value and as a file."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..rules.categories import FAMILY_NAMES, TEXT_WIDTHS, normalize_categories
from ..system.tensors import LazyTensors, open_tensors, write_tensors
from .lora_file import LoraLayers
from .lora_keys import to_kohya
from .low_rank import LowRank
from .report import report_text

FORMAT_VERSION = "1"
SAVE_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_ARCHITECTURES = {  # family -> modelspec.architecture, ss_base_model_version
    "sd15": ("stable-diffusion-v1/lora", "sd_v1"),
    "sd21": ("stable-diffusion-v2-768-v/lora", "sd_v2"),
    "sdxl": ("stable-diffusion-xl-v1-base/lora", "sdxl_base_v1-0"),
}
# Prefixes of what other tools write for the same base models -> family.
_FAMILY_HINTS = {
    "stable-diffusion-v1": "sd15",
    "stable-diffusion-v2": "sd21",
    "stable-diffusion-xl": "sdxl",
    "sd_v1": "sd15",
    "sd_v2": "sd21",
    "sdxl": "sdxl",
}
_LORA_LIKE = r"lora|\.alpha$|hada_|lokr_|oft_|dora_scale"
# Metadata that is valid only for the file it was read from: hashes of its bytes, and a scale now folded in.
_STALE = r"sshs_.*|modelspec\.hash_.*|lora_adapter_metadata|ss_network_args"


@dataclass(frozen=True, eq=False)  # holds tensors: compare by `content_hash`
class SafetyExpert:
    """A LoRA that steers a base model away from some categories of harm.

    Args:
        layers: update of each UNet layer by diffusers path, fp32, scale folded in.
        categories: normalised names; empty if unknown.
        family: base model family, `sd15`, `sd21` or `sdxl`.
        metadata: strings of the file, `alignguard.*` among them.
        name: for people, usually the file name.
    """

    layers: Mapping[str, LowRank]
    categories: tuple[str, ...]
    family: str
    metadata: Mapping[str, str]
    name: str

    @property
    def rank(self) -> int:
        """Largest rank of any layer, 0 if there is no layer."""
        return max((layer.rank for layer in self.layers.values()), default=0)

    @property
    def text_width(self) -> int | None:
        """Width of the text embeddings that the expert expects; None if it has no cross-attention layer."""
        return next((self.layers[m].d_in for m in self.layers if re.search(r"attn2\.to_[kv]$", m)), None)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the layers' paths, shapes and fp32 values; it ignores the expert's name and metadata."""
        digest = hashlib.sha256()
        for module in sorted(self.layers):
            layer = self.layers[module]
            digest.update(f"{module} {layer.d_out} {layer.rank} {layer.d_in}\n".encode())
            for factor in (layer.up, layer.down):
                digest.update(factor.detach().cpu().float().contiguous().numpy())
        return digest.hexdigest()

    def report(self) -> str:
        """Return several lines of text for people, see `report_text`."""
        return report_text(self.name, self.categories, self.family, self.layers, self.metadata)


def load_expert(path: Path) -> SafetyExpert:
    """Read an expert, or any plain UNet LoRA of a known family, from a safetensors file.

    Args:
        path: file with Kohya, diffusers, PEFT or native keys. PEFT's `adapter_config.json` beside a PEFT
            file gives its scale.

    Returns:
        The expert, named after the file. Layers are fp32 copies, so the file may be moved or replaced
        afterwards: a host keeps experts for hours, a mapped file cannot be deleted on Windows, and a mapped
        file that is truncated crashes the process. An expert of rank 4 takes 3 to 23 MB.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: naming the file, if it is a pickle, damaged, a full checkpoint or another kind of LoRA,
            has values that are not finite, or its base model is unknown.
    """
    with open_expert(path) as expert:
        return replace(expert, layers=dict(expert.layers))


@contextmanager
def open_expert(path: Path) -> Iterator[SafetyExpert]:
    """Open an expert as `load_expert` does, but read a layer from the file each time it is accessed.

    Only layers in use take memory, beside pages of the file that the system may drop. The expert is valid
    only within the context, and the file must not change meanwhile.
    """
    path = Path(path)
    with open_tensors(path) as state:
        metadata = dict(state.metadata)
        try:
            _refuse_checkpoint(state)
            layers = LoraLayers(state, peft_config=_peft_config(path, state))
            _check_finite(layers)
            categories = normalize_categories(metadata.get("alignguard.categories", ""))
            family = _family(metadata, SafetyExpert(layers, (), "", {}, "").text_width)
        except ValueError as error:
            raise ValueError(f"{path.name} cannot be used as an expert: {error}") from error
        yield SafetyExpert(layers, categories, family, metadata, path.name)


def save_expert(expert: SafetyExpert, path: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Write an expert with Kohya keys and explicit alphas, which all stock loaders read.

    Args:
        expert: the expert. Its metadata is kept; entries that describe the file are replaced.
        path: a new `.safetensors` file; its folder is created if needed.
        dtype: a value of `SAVE_DTYPES`. Alphas stay fp32.

    Returns:
        The path. The same expert gives the same bytes under any file name.

    Raises:
        FileExistsError: if the file exists; nothing is ever overwritten.
        ValueError: if the file name does not end in `.safetensors`, the expert has no layers, or a value is
            not finite, before or after the conversion to `dtype`.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"an expert's file name must end in .safetensors, got {path.name!r}.")
    if not expert.layers:
        raise ValueError(f"expert {expert.name!r} has no layers, so there is nothing to save.")
    _check_finite(expert.layers)
    state = to_kohya(expert.layers, expert.family)
    for key in state:
        if not key.endswith(".alpha"):
            state[key] = state[key].detach().to("cpu", dtype)
            if not bool(state[key].isfinite().all()):
                raise ValueError(f"{key} does not fit {dtype}. Save the expert as fp32 or bf16.")
    return write_tensors(path, state, _file_metadata(expert))


def check_family(expert: SafetyExpert, family_name: str, text_width: int) -> None:
    """Raise if an expert was trained for another base model family.

    Args:
        expert: the expert.
        family_name: family of the model, such as `sd15`.
        text_width: width of the text embeddings of the model.

    Raises:
        ValueError: naming the expert, both families and both widths.
    """
    width = expert.text_width
    if expert.family == family_name and width in (None, text_width):
        return
    model = FAMILY_NAMES.get(family_name, family_name)
    trained = FAMILY_NAMES.get(expert.family, expert.family) + (f" (text width {width})" if width else "")
    raise ValueError(
        f"expert {expert.name!r} was trained for {trained}; this model is {model} ({text_width}). "
        f"Load an {model} expert."
    )


def _refuse_checkpoint(state: LazyTensors) -> None:
    # `.alpha` at the end only: full checkpoints hold alphas_cumprod
    if len(state) and not any(re.search(_LORA_LIKE, key) for key in state):
        raise ValueError(
            "it holds full weights, not a LoRA. Open a checkpoint with a checkpoint loader, and choose an "
            "expert or a LoRA here."
        )


def _peft_config(path: Path, state: LazyTensors) -> dict[str, Any]:
    """Return PEFT's LoraConfig from the file's metadata or, for a PEFT file, from the file beside it."""
    text = state.metadata.get("lora_adapter_metadata")
    beside = path.with_name("adapter_config.json")
    if text is None and beside.is_file() and any(key.startswith("base_model.model.") for key in state):
        text = beside.read_text(encoding="utf-8")
    try:
        config = json.loads(text or "{}")
        return {key.removeprefix("unet."): value for key, value in config.items()}
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"its PEFT configuration is not readable ({error}).") from error


def _check_finite(layers: Mapping[str, LowRank]) -> None:
    for module, layer in layers.items():
        if not bool(layer.up.isfinite().all() and layer.down.isfinite().all()):
            raise ValueError(
                f"{module} has values that are not finite, so its training diverged. Use another file."
            )


def _family(metadata: Mapping[str, str], text_width: int | None) -> str:
    stated = metadata.get("alignguard.family") or _hinted_family(metadata)
    measured = TEXT_WIDTHS.get(text_width)
    if stated and measured and stated in FAMILY_NAMES and stated != measured:
        raise ValueError(
            f"its metadata says {FAMILY_NAMES[stated]}, but its text width {text_width} is that of "
            f"{FAMILY_NAMES[measured]}. Download or train it again."
        )
    family = stated or measured
    if not family:
        raise ValueError(
            f"it does not say which base model it is for (text width {text_width}). "
            f"Use a LoRA of {', '.join(FAMILY_NAMES.values())}."
        )
    return family


def _hinted_family(metadata: Mapping[str, str]) -> str | None:
    texts = (metadata.get("modelspec.architecture", ""), metadata.get("ss_base_model_version", ""))
    hits = (family for text in texts for hint, family in _FAMILY_HINTS.items() if text.startswith(hint))
    return next(hits, None)


def _file_metadata(expert: SafetyExpert) -> dict[str, str]:
    inherited = {key: value for key, value in expert.metadata.items() if not re.fullmatch(_STALE, key)}
    categories = ", ".join(expert.categories)
    title = f"AlignGuard expert: {categories or 'no category'}"
    architecture, version = _ARCHITECTURES.get(expert.family, (f"{expert.family}/lora", expert.family))
    of_file = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": architecture,
        "modelspec.implementation": "diffusers",
        "modelspec.title": inherited.get("modelspec.title") or title,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(expert.rank),
        "ss_network_alpha": str(float(expert.rank)),
        "ss_base_model_version": version,
        "alignguard.version": FORMAT_VERSION,
        "alignguard.categories": categories,
        "alignguard.family": expert.family,
        "alignguard.rank": str(expert.rank),
    }
    return inherited | of_file
