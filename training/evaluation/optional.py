"""Packages that only one judge or measure needs, imported when it is made."""

import hashlib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType


def optional_package(module: str, package: str, user: str) -> tuple[ModuleType, str]:
    """Return a module and the version of its package.

    Args:
        module: name to import.
        package: name on PyPI.
        user: what needs it, for the error, such as `the judge nudenet`.

    Raises:
        ValueError: if it is not installed, or does not load; it says what to type.
    """
    try:
        return import_module(module), version(package)
    except ImportError as error:  # PackageNotFoundError is one of them
        raise ValueError(
            f"{user} needs the package {package}, which does not load here ({error}). Install it "
            f"into the Python that runs this (pip install {package}) and start again, or do without it."
        ) from error


def model_hash(path: Path) -> str:
    """Return the SHA-256 of a model: of its file, or the config and weights in its folder."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted([*path.glob("config.json"), *path.glob("*.safetensors")])
    for each in files:
        with each.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
