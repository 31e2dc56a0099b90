"""What judges and measures take from the user's machine: packages they import and models they identify."""

import hashlib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType


def optional_package(module: str, package: str, user: str) -> tuple[ModuleType, str]:
    """Import a package that only one judge or measure needs; return its module and version.

    Args:
        module: name to import.
        package: name on PyPI.
        user: what needs the package, for the error, such as `the judge nudenet`.

    Raises:
        ValueError: if the package is not installed or does not load; it says how to install it.
    """
    try:
        return import_module(module), version(package)
    except ImportError as error:  # PackageNotFoundError is one of them
        raise ValueError(
            f"{user} needs the package {package}, which does not load here ({error}). Install it "
            f"into the Python that runs this (pip install {package}) and start again, or do without it."
        ) from error


def model_hash(path: Path) -> str:
    """Return the SHA-256 of a model: of its file, or of the config and the weights in its folder."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted([*path.glob("config.json"), *path.glob("*.safetensors")])
    for model_file in files:
        with model_file.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
