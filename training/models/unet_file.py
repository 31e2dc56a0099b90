"""The network of a model on disk, read tensor by tensor, whatever its file layout.

The tensors of a UNet have diffusers' names, those of a flow's transformer the names of its original code.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..rules.categories import FAMILY_NAMES, TEXT_WIDTHS
from ..system.tables import read_json
from ..system.tensors import open_tensors
from .diffusers_folder import check_weights
from .flow import flow_family_of_network
from .native_unet import CHECKPOINT_PREFIX, PLAIN_DTYPES, diffusers_names
from .published import FOREIGN_CHANNELS, pruned_like

WEIGHTS = "diffusion_pytorch_model.safetensors"
_INDEX_SUFFIX = ".safetensors.index.json"
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})\.safetensors")
_TEXT_KEYS = ".attn2.to_k.weight"  # (channels, text width)


class UnetFile:
    """The tensors of a UNet by diffusers' names; only names and shapes stay in memory.

    Attributes:
        name: name of the file or folder, for people.
        shapes: shapes of all tensors by name.
        family: model family, a key of `FAMILY_NAMES`.
    """

    def __init__(self, path: Path) -> None:
        """Find the UNet in a checkpoint, a separate file, or a diffusers folder, sharded or not.

        One shard, or the index of all, stands for all of them.

        Raises:
            FileNotFoundError: if the path does not exist, or a shard is missing.
            ValueError: naming the file, if it is a pickle, damaged, a LoRA or of an unknown family.
        """
        self.name = path.name
        files, shapes = {}, {}
        for file in _files(path):
            with open_tensors(file) as tensors:
                for key in tensors:
                    files[key], shapes[key] = file, tensors.shape(key)
        try:
            keys = _unet_keys(shapes)
            self.shapes = {name: shapes[key] for name, key in keys.items()}
            self.family = _family(self.shapes)
            _refuse_variant(self.shapes)
        except ValueError as error:
            raise ValueError(f"{path.name} cannot be used: {error}") from error
        self._places = {name: (files[key], key) for name, key in keys.items()}

    def tensor(self, name: str) -> Tensor:
        """Return a tensor on the CPU as it is stored.

        The file is opened for every tensor, because a mapping that stays open keeps everything it has read in
        memory.

        Raises:
            ValueError: if the tensor is quantised.
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
        return _of_file(path)
    folder = path / "unet" if (path / "unet").is_dir() else path
    indices = sorted(folder.glob(f"*{_INDEX_SUFFIX}"), key=lambda file: (len(file.name), file.name))
    if (folder / WEIGHTS).is_file() or not indices:  # the plain name before variants like fp16
        check_weights(folder, folder.name if folder == path else f"{path.name}/unet")
        return [_single(folder)]
    return _shards(indices[0])


def _of_file(path: Path) -> list[Path]:
    if path.name.endswith(_INDEX_SUFFIX):
        return _shards(path)
    shard = _SHARD.fullmatch(path.name)
    if not shard or int(shard[2]) == 1:
        return [path]
    index = path.with_name(f"{shard[1]}{_INDEX_SUFFIX}")
    if not index.is_file():
        raise FileNotFoundError(
            f"{path.name} is one of {int(shard[2])} shards, but {index.name}, which names them all, is not "
            "beside it. Download the whole folder."
        )
    return _shards(index)


def _shards(index: Path) -> list[Path]:
    try:
        weight_map = read_json(index)["weight_map"]
        shards = sorted(set(weight_map.values()))
        plain = all(Path(shard).name == shard for shard in shards)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{index.name} is damaged ({error!r}). Download it again.") from error
    if not plain:
        raise ValueError(f"{index.name} names files outside its folder. Use the folder as published.")
    return [index.with_name(shard) for shard in shards]


def _single(folder: Path) -> Path:
    files = sorted(folder.glob("*.safetensors"), key=lambda file: (file.name != WEIGHTS, file.name))
    if len(files) > 1 and files[0].name != WEIGHTS:
        raise ValueError(
            f"{folder.name} holds {len(files)} .safetensors files, and none is {WEIGHTS}: "
            f"{', '.join(file.name for file in files[:3])}. Choose one of the files."
        )
    return files[0]


def _unet_keys(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Return the key of each tensor of the UNet by its diffusers name."""
    prefix = CHECKPOINT_PREFIX if any(key.startswith(CHECKPOINT_PREFIX) for key in shapes) else ""
    names = {key.removeprefix(prefix): key for key in shapes if key.startswith(prefix)}
    if "input_blocks.0.0.weight" in names:
        meta = {name: torch.empty(shapes[key], device="meta") for name, key in names.items()}
        return {name: names[native] for native, name in diffusers_names(meta).items()}
    if flow_family_of_network(names):
        return names
    if "conv_in.weight" in names and any(name.startswith("down_blocks.") for name in names):
        return names
    if any("lora" in name for name in names):
        raise ValueError("it is already a LoRA. Choose the full model, or load the LoRA as an expert.")
    example = f", such as {next(iter(names))}" if names else ""
    raise ValueError(
        f"it holds no network of Stable Diffusion ({len(names)} tensors{example}). Choose a checkpoint, or a "
        "diffusers folder with its unet inside."
    )


def _family(shapes: Mapping[str, tuple[int, ...]]) -> str:
    if flow := flow_family_of_network(shapes):
        return flow.name
    width = next((shapes[name][1] for name in sorted(shapes) if name.endswith(_TEXT_KEYS)), None)
    if width not in TEXT_WIDTHS:
        families = ", ".join(FAMILY_NAMES.values())
        raise ValueError(
            f"its text width is {width or 'missing'}, which belongs to none of {families}. Choose a model of "
            "these families."
        )
    return TEXT_WIDTHS[width]


def _refuse_variant(shapes: Mapping[str, tuple[int, ...]]) -> None:
    if "conv_in.weight" not in shapes:
        return  # a flow has no such variants
    pruned = pruned_like(name.removesuffix(".weight") for name in shapes)
    kind = pruned or FOREIGN_CHANNELS.get(shapes["conv_in.weight"][1])
    if kind:
        raise ValueError(
            f"it is {kind}, whose layers are not those of the plain model, so that a LoRA of it would fit no "
            "model that this pack supports. Choose a plain model."
        )
