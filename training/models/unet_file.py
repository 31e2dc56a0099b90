"""The UNet of a model on disk, under diffusers' names however it is stored, read tensor by tensor."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..rules.categories import FAMILY_NAMES, TEXT_WIDTHS
from ..system.tensors import open_tensors
from .diffusers_folder import check_weights
from .native_unet import CHECKPOINT_PREFIX, PLAIN_DTYPES, diffusers_names

WEIGHTS = "diffusion_pytorch_model.safetensors"
_INDEX_SUFFIX = ".safetensors.index.json"
_WIDTH_FROM = ".attn2.to_k.weight"


class UnetFile:
    """The tensors of a UNet by diffusers' names; nothing but names and shapes stays in memory.

    Attributes:
        name: of the file or folder, for people.
        shapes: of all tensors, by name.
        family: base model line, a key of `FAMILY_NAMES`.
    """

    def __init__(self, path: Path) -> None:
        """Find the UNet in a checkpoint, a file of its own, or a folder of diffusers, sharded or not.

        Raises:
            FileNotFoundError: if there is nothing at the path, or a shard is missing.
            ValueError: naming the file, if it is a pickle, damaged, a LoRA, or no UNet of a known line.
        """
        self.name = path.name
        found = {}
        for file in _files(path):
            with open_tensors(file) as tensors:
                found |= {key: (file, tensors.shape(key)) for key in tensors}
        try:
            keys = _unet_keys({key: shape for key, (_, shape) in found.items()})
            self.shapes = {name: found[key][1] for name, key in keys.items()}
            self.family = _family(self.shapes)
        except ValueError as error:
            raise ValueError(f"{path.name} cannot be used: {error}") from error
        self._places = {name: (found[key][0], key) for name, key in keys.items()}

    def tensor(self, name: str) -> Tensor:
        """Return a tensor on the CPU as it is stored.

        The file is opened anew for each: a mapping that stays open keeps all it ever read in memory.

        Raises:
            ValueError: if it is quantised.
        """
        file, key = self._places[name]
        with open_tensors(file) as tensors:
            tensor = tensors[key]
        if tensor.dtype not in PLAIN_DTYPES:
            raise ValueError(
                f"{key} in {file.name} is stored as {tensor.dtype}. Use the model in fp32, fp16 or bf16."
            )
        return tensor


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    folder = path / "unet" if (path / "unet").is_dir() else path
    indices = sorted(folder.glob(f"*{_INDEX_SUFFIX}"), key=lambda file: (len(file.name), file.name))
    if (folder / WEIGHTS).is_file() or not indices:  # the plain name before variants such as fp16
        check_weights(folder, folder.name if folder == path else f"{path.name}/unet")
        return [_single(folder)]
    try:
        named = json.loads(indices[0].read_text(encoding="utf-8"))["weight_map"].values()
        shards = sorted(set(named))
        plain = all(Path(shard).name == shard for shard in shards)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{indices[0].name} is damaged ({error!r}). Download it again.") from error
    if not plain:
        raise ValueError(f"{indices[0].name} names files outside its folder. Use the folder as published.")
    return [folder / shard for shard in shards]


def _single(folder: Path) -> Path:
    files = sorted(folder.glob("*.safetensors"), key=lambda file: (file.name != WEIGHTS, file.name))
    if len(files) > 1 and files[0].name != WEIGHTS:
        raise ValueError(
            f"{folder.name} holds {len(files)} .safetensors files and none is {WEIGHTS}: "
            f"{', '.join(file.name for file in files[:3])}. Name the one to use."
        )
    return files[0]


def _unet_keys(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Return the key of each tensor of the UNet by its diffusers name."""
    prefix = CHECKPOINT_PREFIX if any(key.startswith(CHECKPOINT_PREFIX) for key in shapes) else ""
    names = {key.removeprefix(prefix): key for key in shapes if key.startswith(prefix)}
    if "input_blocks.0.0.weight" in names:
        meta = {name: torch.empty(shapes[key], device="meta") for name, key in names.items()}
        return {name: names[native] for native, name in diffusers_names(meta).items()}
    if "conv_in.weight" in names and any(name.startswith("down_blocks.") for name in names):
        return names
    if any("lora" in name for name in names):
        raise ValueError("it is a LoRA already. Choose the full model, or load the LoRA as an expert.")
    example = f", such as {next(iter(names))}" if names else ""
    raise ValueError(
        f"it holds no UNet of Stable Diffusion ({len(names)} tensors{example}). Choose a checkpoint, or a "
        "folder of diffusers with its unet inside."
    )


def _family(shapes: Mapping[str, tuple[int, ...]]) -> str:
    width = next((shapes[name][1] for name in sorted(shapes) if name.endswith(_WIDTH_FROM)), None)
    if width not in TEXT_WIDTHS:
        known = ", ".join(FAMILY_NAMES[name] for name in TEXT_WIDTHS.values())
        raise ValueError(f"its text width is {width or 'none'}, which is that of none of {known}.")
    return TEXT_WIDTHS[width]
