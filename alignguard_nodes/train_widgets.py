"""Widgets of Train Safety DPO that are not options of `TrainConfig`, and the check of all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from comfy_api.latest import io

from ..training.config import PRESET_HELP, PRESETS, TrainConfig
from .inputs import DEFAULT_RESOLUTION


@dataclass(frozen=True)
class TrainWidgets:
    """The values of the optional ones, with their defaults."""

    preset: str = "custom"
    resolution: int = DEFAULT_RESOLUTION
    bake_patches: bool = False
    filename_prefix: str = ""
    resume: bool = False


def preset_input() -> io.Input:
    """Return the widget that chooses a preset."""
    return io.Combo.Input(
        "preset",
        options=list(PRESETS),
        default=TrainWidgets.preset,
        optional=True,
        tooltip=f"{PRESET_HELP} A preset replaces the values of the widgets.",
    )


def bake_patches_input() -> io.Input:
    """Return the widget that allows a MODEL with a LoRA."""
    return io.Boolean.Input(
        "bake_patches",
        default=TrainWidgets.bake_patches,
        optional=True,
        tooltip="On: a LoRA or expert applied before this node becomes part of the base model, and the new "
        "expert is trained for that model. Off: such a MODEL is refused.",
    )


def filename_prefix_input() -> io.Input:
    """Return the widget that names the file."""
    return io.String.Input(
        "filename_prefix",
        default=TrainWidgets.filename_prefix,
        optional=True,
        tooltip="Name of the file in output/loras/alignguard. A counter is added, and no file is "
        "overwritten. Empty uses the category as the name.",
    )


def resume_input() -> io.Input:
    """Return the widget that continues a run."""
    return io.Boolean.Input(
        "resume",
        default=TrainWidgets.resume,
        optional=True,
        tooltip="On: continues from the newest state of the same filename_prefix, for example of a cancelled "
        "run; only save_every and checkpointing (and steps, if lr_schedule is constant) may differ. Starts "
        "from the beginning if there is no state. Off: starts from the beginning. Either way, a finished "
        "run of the same filename_prefix with equal inputs is not trained again: its expert is returned.",
    )


def check_options(options: Mapping[str, Any]) -> None:
    """Check what training checks of the options alone, before anything is encoded.

    Raises:
        ValueError: if an option breaks its rule, or two do not fit each other.
    """
    from ..training.system.processes import Processes
    from ..training.trainer.start import refuse_misfit

    usable = SimpleNamespace(num_pairs=1, is_mirrored=True)  # the pairs are linked: they come later
    refuse_misfit(usable, TrainConfig(**options), Processes())
