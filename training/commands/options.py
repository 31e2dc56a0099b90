"""Command-line options: those generated from a config class, and those that several commands share."""

import argparse
import dataclasses
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from ..config import options
from ..rules.categories import TEXT_WIDTHS, normalize_category

if TYPE_CHECKING:
    import torch

_Config = TypeVar("_Config")


class CommandParser(argparse.ArgumentParser):
    """A parser with one-line errors and without abbreviations, which would break scripts later."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Write the error on one line of stderr, and exit with 2."""
        self.exit(2, f"{self.prog}: {one_line(message).removesuffix('.')}. See {self.prog} --help.\n")


def one_line(message: object) -> str:
    """Return a message, such as an error, without line breaks."""
    return " ".join(str(message).split())


def add_config_options(
    parser: argparse.ArgumentParser,
    config: type,
    choices: Mapping[str, Iterable[str]],
    *,
    has_presets: bool = False,
) -> None:
    """Add one option per field of a config class.

    Args:
        parser: parser of the command.
        config: the class, such as `TrainConfig`.
        choices: field -> values, for fields whose values a registry lists.
        has_presets: leave untyped options out of the result, so that a preset can set them.
    """
    group = parser.add_argument_group("options that change the result")
    for option in options(config):
        flag = f"--{option.name.replace('_', '-')}"
        values = tuple(choices.get(option.name, option.metadata.get("choices", ())))
        default = argparse.SUPPRESS if has_presets else option.default
        group.add_argument(flag, default=default, help=_help(option), **_kind(option, values))


def config_from(
    args: argparse.Namespace, config: type[_Config], preset: Mapping[str, Any] | None = None
) -> _Config:
    """Return a config with the typed options that `add_config_options` declared.

    Args:
        args: parsed options of the command.
        config: the class of the config.
        preset: values for options that were not typed and that differ from the defaults.

    Raises:
        ValueError: if a value is out of its range.
    """
    names = [option.name for option in options(config)]
    typed = {name: getattr(args, name) for name in names if hasattr(args, name)}
    return config(**{**(preset or {}), **typed})


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json, an option of every command."""
    parser.add_argument("--json", action="store_true", help="answer with one JSON object on stdout")


def add_family(parser: argparse.ArgumentParser) -> None:
    """Add --family, which decides for LoRAs that fit several base models and do not say which is theirs."""
    parser.add_argument(
        "--family",
        choices=list(TEXT_WIDTHS.values()),
        default="",
        help="base model of a LoRA whose layers and metadata do not tell it",
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for running the base model: --resolution and --device."""
    parser.add_argument(
        "--resolution",
        type=_resolution,
        default=512,
        metavar="PIXELS",
        help="side of the square picture, a multiple of 8; 512 for SD 1.5, 64 for the mini model "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="where to run it, such as cpu or cuda:1; auto is the GPU if there is one (default: %(default)s)",
    )


def new_expert(text: str) -> Path:
    """Return --out as the path of a new .safetensors file; check it before hours of work."""
    from ..system.tensors import refuse_existing  # late: it imports torch, and --help needs none
    from ..system.work_folder import try_new_file

    path = Path(text)
    if path.suffix != ".safetensors":
        raise argparse.ArgumentTypeError(f"the file name must end in .safetensors, got {path.name!r}")
    try:
        refuse_existing(path)
        try_new_file(path)
    except FileExistsError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"{path.name} cannot be written to {path.parent} ({error.strerror}); choose a shorter name, or a "
            "folder that can be written"
        ) from error
    return path


def category_name(text: str) -> str:
    """Return the normalised name of one category."""
    try:
        return normalize_category(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def distance(text: str) -> float:
    """Return a finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number of at least 0, got {text}")
    return value


def device_of(name: str) -> "torch.device":
    """Return a device by name; `auto` is the GPU if there is one.

    Raises:
        ValueError: if the name is not a device, or this machine does not have the device.
    """
    import torch  # late: --help needs none

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        raise ValueError(f"device {name!r} cannot be used ({error}). Use --device auto.") from error


def shard_of(device: str) -> tuple[tuple[int, int], str]:
    """Return (number of this process, number of processes), set by `accelerate launch`, and its device."""
    rank, world = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    if device == "auto" and world > 1:
        import torch  # late, as above

        if torch.cuda.is_available():
            device = f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
    return (rank, world), device


def _help(option: dataclasses.Field) -> str:
    return f"{option.metadata['help']} (default: {option.default})".replace("%", "%%")


def _kind(option: dataclasses.Field, values: tuple[str, ...]) -> dict[str, Any]:
    if option.type is bool:
        return {"action": argparse.BooleanOptionalAction}
    if values:
        return {"choices": values}
    return {"type": option.type, "metavar": {int: "N", float: "X"}.get(option.type, "TEXT")}


def _resolution(text: str) -> int:
    if not text.isdecimal() or int(text) < 8 or int(text) % 8:
        raise argparse.ArgumentTypeError(f"must be a multiple of 8 pixels, got {text}")
    return int(text)
