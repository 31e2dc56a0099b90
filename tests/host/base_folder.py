"""A base directory for ComfyUI: models, inputs, outputs and nodes, separate from any ComfyUI of the user."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]
PACK_NAME = "alignguard"
PAIRS = "user/__alignguard/pairs"  # where the pack keeps pairs, because ComfyUI lists and serves its input
PAIRS_FOLDER = f"{PAIRS}/alignguard_pairs"  # as the shipped graphs name it
FOLDERS = ("custom_nodes", "input", PAIRS_FOLDER, "output", "temp", "user/default/workflows")
MODEL_FOLDERS = ("checkpoints", "diffusion_models", "loras", "safety_experts")
CACHES = ("__pycache__", ".pytest_cache", ".ruff_cache")
NOT_COPIED = (".git", ".venv", ".host", "demo_output", "test_output", *CACHES)


def prepare_base(base: Path) -> None:
    """Create the folders of a base directory and put this pack into its custom_nodes as `alignguard`."""
    for name in (*FOLDERS, *(f"models/{name}" for name in MODEL_FOLDERS)):
        (base / name).mkdir(parents=True, exist_ok=True)
    link_folder(PACK, base / "custom_nodes" / PACK_NAME)


def place_mini(base: Path, mini: Mapping[str, Path]) -> None:
    """Put the files of `build_mini` where the nodes and the shipped graphs look for them.

    Args:
        base: a prepared base directory.
        mini: the result of `build_mini`.
    """
    link_file(mini["checkpoint"], base / "models" / "checkpoints" / mini["checkpoint"].name)
    if "tuned" in mini:  # the small world's UNet alone has this and experts
        link_file(mini["tuned"], base / "models" / "diffusion_models" / mini["tuned"].name)
        for expert in sorted(mini["experts"].glob("*.safetensors")):
            link_file(expert, base / "models" / "safety_experts" / expert.name)
    link_file(mini["neutral"], base / "input" / mini["neutral"].name)
    for pairs in sorted(folder for folder in mini["pairs"].iterdir() if (folder / "pairs.jsonl").is_file()):
        _link_files(pairs, base / PAIRS_FOLDER / pairs.name)


def place_workflows(base: Path) -> None:
    """Copy the pack's graphs to the saved workflows, without overwriting any."""
    for graph in sorted((PACK / "workflows").glob("*.json")):
        target = base / "user" / "default" / "workflows" / graph.name
        if not target.exists():
            shutil.copyfile(graph, target)


def _link_files(source: Path, target: Path) -> None:
    # the folder itself is no link, because the nodes refuse pairs that a link leads out of their place
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        link_file(file, target / file.name)


def link_file(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`: a hard link, or a copy across drives."""
    if target.exists() and target.stat().st_mtime_ns == source.stat().st_mtime_ns:
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def link_folder(source: Path, target: Path) -> None:
    """Make `target` a symbolic link to the folder `source`, or a junction (Windows), or a copy."""
    if target.is_symlink() and target.resolve() == source.resolve():
        return
    _remove(target)
    try:
        os.symlink(source, target, target_is_directory=True)
        return
    except OSError:  # Windows without developer mode
        command = ["cmd", "/c", "mklink", "/J", str(target), str(source)]
    try:
        subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*NOT_COPIED))


def _remove(target: Path) -> None:
    try:
        os.unlink(target)  # a link, on Windows also a junction
    except FileNotFoundError:
        pass
    except OSError:
        shutil.rmtree(target)
