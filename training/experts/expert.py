"""A safety expert: the LoRA of one or more categories of harm, as a value and as a file."""

import hashlib
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch

from ..rules.categories import FAMILY_NAMES, normalize_categories
from ..system.tensors import LazyTensors, open_tensors, write_tensors
from .lora_file import LoraLayers
from .lora_keys import to_file
from .lora_parts import LEFT_OUT, check_whole, part_of_file, refusal, sentence
from .low_rank import LowRank
from .origin import family_of_lora
from .peft_config import METADATA_KEY, read_peft_config
from .report import report_text

log = logging.getLogger(__name__)

FORMAT_VERSION = "1"
MAX_RMS = 10.0  # of an update; the shipped experts reach 0.01, and weights of base models about 0.1
SAVE_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_ARCHITECTURES = {  # family -> modelspec.architecture, ss_base_model_version
    "sd15": ("stable-diffusion-v1/lora", "sd_v1"),
    "sd21": ("stable-diffusion-v2-768-v/lora", "sd_v2"),
    "sdxl": ("stable-diffusion-xl-v1-base/lora", "sdxl_base_v1-0"),
    "sd3": ("stable-diffusion-3/lora", "sd3"),
    "flux1": ("flux-1-dev/lora", "flux1"),
    "flux2": ("flux-2-klein/lora", "flux2"),
    "qwenimage": ("qwen-image/lora", "qwen-image"),
    "krea2": ("krea-2/lora", "krea2"),
}
_LORA_LIKE = r"lora|lycoris|\.alpha$|hada_|lokr_|oft_|dora_scale|\.diff$|\.[wb]_norm$"
# Metadata that is valid only for the file it was read from: hashes of its bytes, and a scale now folded in.
_STALE = rf"sshs_.*|modelspec\.hash_.*|{METADATA_KEY}|ss_network_args"


@dataclass(frozen=True, eq=False)  # holds tensors: compare by `content_hash`
class SafetyExpert:
    """A LoRA that steers a base model away from some categories of harm.

    Args:
        layers: update of each layer by its path, fp32, scale folded in: diffusers' path in a UNet, the
            original code's in a flow's transformer.
        categories: normalised names; empty if unknown.
        family: base model family, a key of `FAMILY_NAMES`.
        metadata: strings of the file, `alignguard.*` among them.
        name: for people, usually the file name.
        left_out: kind -> number of tensors of the file that are not LoRA layers of the UNet.
    """

    layers: Mapping[str, LowRank]
    categories: tuple[str, ...]
    family: str
    metadata: Mapping[str, str]
    name: str
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """Largest rank of any layer, 0 if there is no layer."""
        return max((layer.rank for layer in self.layers.values()), default=0)

    @property
    def text_width(self) -> int | None:
        """Width of the text embeddings that the expert expects; None if it has no cross-attention layer."""
        return next((self.layers[m].d_in for m in self.layers if re.search(r"attn2\.to_[kv]$", m)), None)

    def check_whole(self) -> None:
        """Raise if this is less than an expert needs; a LoRA beside an expert may be.

        Raises:
            ValueError: if the file also changes the text encoder, or replaces whole weights.
        """
        check_whole(self.name, self.left_out)

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


def load_expert(path: Path, *, assumed_family: str = "") -> SafetyExpert:
    """Read an expert, or the UNet layers of any plain LoRA of a known family, from a safetensors file.

    Parts besides these layers, such as those of a text encoder, are left out, counted and logged.

    Args:
        path: file with Kohya, diffusers, PEFT or native keys. PEFT's `adapter_config.json` beside a PEFT
            file gives its scale.
        assumed_family: family of the base model if the file does not tell it; empty to refuse the file then.

    Returns:
        The expert, named after the file. Layers are fp32 copies, so the file may be moved or replaced
        afterwards: a host keeps experts for hours, a mapped file cannot be deleted on Windows, and a mapped
        file that is truncated crashes the process. An expert of rank 4 takes 3 to 23 MB.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: naming the file, if it is a pickle, damaged, a full checkpoint or another kind of LoRA,
            has values that are not finite or absurdly large, or its base model is unknown or not supported.
    """
    with open_expert(path, assumed_family=assumed_family) as expert:
        return replace(expert, layers=dict(expert.layers))


@contextmanager
def open_expert(path: Path, *, assumed_family: str = "") -> Iterator[SafetyExpert]:
    """Open an expert as `load_expert` does, but read a layer from the file each time it is accessed.

    Only layers in use take memory, beside pages of the file that the system may drop. The expert is valid
    only within the context, and the file must not change meanwhile.
    """
    path = Path(path)
    with open_tensors(path) as state:
        metadata = dict(state.metadata)
        try:
            _refuse_checkpoint(state)
            layers = LoraLayers(state, peft_config=read_peft_config(path, state))
            shapes = _checked_shapes(layers)
            check_size("it", layers)
            categories = normalize_categories(metadata.get("alignguard.categories", ""))
            convolutions = layers.convolutional_projections()
            family = family_of_lora(shapes, metadata, convolutions=convolutions, assumed=assumed_family)
        except ValueError as error:
            raise ValueError(f"{path.name} cannot be used as an expert: {error}") from error
        if layers.left_out:
            metadata[LEFT_OUT] = sentence(layers.left_out)
            log.warning("%s is used without %s", path.name, metadata[LEFT_OUT])
        yield SafetyExpert(layers, categories, family, metadata, path.name, layers.left_out)


def save_expert(expert: SafetyExpert, path: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Write an expert with explicit alphas, under keys that the stock loader reads, see `to_file`.

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
    _checked_shapes(expert.layers)
    state = to_file(expert.layers, expert.family)
    for key in state:
        if not key.endswith(".alpha"):
            state[key] = state[key].detach().to("cpu", dtype)
            if not bool(state[key].isfinite().all()):
                raise ValueError(f"{key} does not fit {dtype}. Save the expert as fp32 or bf16.")
    return write_tensors(path, state, _file_metadata(expert))


def check_size(name: str, layers: Mapping[str, LowRank]) -> None:
    """Raise if an update is far larger than any that training makes; finite weights may be absurd too.

    Args:
        name: of the expert, or of its file, in the error.
        layers: by path.

    Raises:
        ValueError: naming the layer and its size.
    """
    for module, layer in layers.items():
        num_values = layer.d_out * layer.d_in
        most = MAX_RMS * math.sqrt(num_values)
        if float(layer.up.norm()) * float(layer.down.norm()) <= most:  # |B A| <= |B| |A|, which is cheap
            continue
        if (norm := layer.norm()) > most:
            raise ValueError(
                f"{name} changes every weight of {module} by {norm / math.sqrt(num_values):.3g} (root mean "
                f"square), at most {MAX_RMS:g} is allowed: about a thousand times what training changes. Its "
                "weights or its alpha are damaged; use another file."
            )


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
        f"Load an expert of {model}."
    )


def _refuse_checkpoint(state: LazyTensors) -> None:
    # `.alpha` at the end only: full checkpoints hold alphas_cumprod
    if not len(state) or any(re.search(_LORA_LIKE, key) for key in state):
        return
    kinds = [part_of_file(key) for key in state]
    if all(kinds):
        raise ValueError(refusal({}, Counter(kinds)))
    raise ValueError(
        "it holds full weights, not a LoRA. Open a checkpoint with a checkpoint loader, and choose an "
        "expert or a LoRA here."
    )


def _checked_shapes(layers: Mapping[str, LowRank]) -> dict[str, tuple[int, int]]:
    """Return (d_out, d_in) of every layer; all values must be finite."""
    shapes = {}
    for module, layer in layers.items():
        if not bool(layer.up.isfinite().all() and layer.down.isfinite().all()):
            raise ValueError(
                f"{module} has values that are not finite, so its training diverged. Use another file."
            )
        shapes[module] = layer.d_out, layer.d_in
    return shapes


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
