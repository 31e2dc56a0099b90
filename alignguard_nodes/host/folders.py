"""ComfyUI's folders, and the files in them that widgets name."""

import os
from contextlib import suppress
from pathlib import Path

import folder_paths

EXPERTS = "safety_experts"  # the pack's own folder below models/
GUARDS = "safety_guards"  # below models/ and, where training saves, below output/
_EXPERT_FOLDERS = (EXPERTS, "loras")
_MODEL_KINDS = ("checkpoints", "diffusion_models")


def register_folders() -> None:
    """Register the folders of experts and guards with the host; other packs and users may add to them."""
    folder_paths.add_model_folder_path(EXPERTS, os.path.join(folder_paths.models_dir, EXPERTS))
    for root in (folder_paths.models_dir, folder_paths.get_output_directory()):
        folder_paths.add_model_folder_path(GUARDS, os.path.join(root, GUARDS))
    for kind in (EXPERTS, GUARDS):
        paths, _ = folder_paths.folder_names_and_paths[kind]
        folder_paths.folder_names_and_paths[kind] = (paths, {".safetensors"})


def expert_files() -> list[str]:
    """Return the names of all files that may be experts, sorted."""
    names = {name for folder in _EXPERT_FOLDERS for name in folder_paths.get_filename_list(folder)}
    return sorted(name for name in names if name.lower().endswith(".safetensors"))


def expert_path(name: str) -> Path:
    """Return the file of a name as `expert_files` lists it.

    Raises:
        FileNotFoundError: if no folder has it, also if the name leads out of the folders.
    """
    for folder in _EXPERT_FOLDERS:
        with suppress(ValueError):  # Windows: a name on another drive
            if path := folder_paths.get_full_path(folder, name):
                return Path(path)
    raise FileNotFoundError(
        f"there is no expert {name!r}. Put the file into models/{EXPERTS} or a LoRA folder and press R."
    )


def guard_files() -> list[str]:
    """Return the names of all files that may be guards, sorted."""
    return sorted(folder_paths.get_filename_list(GUARDS))


def guard_path(name: str) -> Path:
    """Return the file of a name as `guard_files` lists it.

    Raises:
        FileNotFoundError: if no folder has it, also if the name leads out of the folders.
    """
    with suppress(ValueError):  # Windows: a name on another drive
        if path := folder_paths.get_full_path(GUARDS, name):
            return Path(path)
    raise FileNotFoundError(f"there is no guard {name!r}. Put the file into models/{GUARDS} and press R.")


def model_files() -> list[str]:
    """Return the names of all checkpoints and UNets: .safetensors files and diffusers folders, sorted."""
    names = {name for kind in _MODEL_KINDS for name in folder_paths.get_filename_list(kind)}
    files = (name for name in names if name.lower().endswith(".safetensors"))
    return sorted({*files, *_diffusers_folders()})


def model_path(name: str) -> Path:
    """Return the file or folder of a name as `model_files` lists it.

    Raises:
        FileNotFoundError: if no folder has it, also if the name leads out of the folders.
    """
    for kind in _MODEL_KINDS:
        with suppress(ValueError):  # Windows: a name on another drive
            if path := folder_paths.get_full_path(kind, name):
                return Path(path)
    if folder := _diffusers_folders().get(name):
        return folder
    raise FileNotFoundError(
        f"there is no model {name!r}. Put it into models/checkpoints, models/diffusion_models or, as a "
        "diffusers folder, into models/diffusers and press R."
    )


def _diffusers_folders() -> dict[str, Path]:
    """Return the diffusers folders that have a UNet, up to two deep, by name."""
    folders = {}
    for root in map(Path, folder_paths.get_folder_paths("diffusers")):
        for unet in (*root.glob("*/unet"), *root.glob("*/*/unet")):
            folders.setdefault(unet.parent.relative_to(root).as_posix(), unet.parent)
    return folders


def judges_folder() -> Path:
    """Return models/safety_judges, where users put the weights of judges."""
    return Path(folder_paths.models_dir, "safety_judges")


def input_folder() -> Path:
    """Return ComfyUI's input folder."""
    return Path(os.path.abspath(folder_paths.get_input_directory()))


def output_folder() -> Path:
    """Return ComfyUI's output folder."""
    return Path(os.path.abspath(folder_paths.get_output_directory()))


def private_folder(name: str) -> Path:
    """Return a folder of this pack below user/, such as the cache, which the web server does not serve."""
    return Path(folder_paths.get_system_user_directory("alignguard"), name)
