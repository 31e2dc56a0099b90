"""What judges and measures take from the user's machine: packages they import and models they identify."""

import hashlib
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple


class Package(NamedTuple):
    """A package that only one judge or measure needs: the name to import, and the name on PyPI."""

    module: str
    name: str


def refuse_missing(package: Package, user: str) -> None:
    """Check that a package is installed, without importing it; see `optional_package`.

    Raises:
        ValueError: if it is not; the error says how to install it.
    """
    if find_spec(package.module) is None:
        raise ValueError(_how_to_install(package.name, user, f"no module named {package.module!r}"))


def _how_to_install(package: str, user: str, reason: object) -> str:
    return (
        f"{user} needs the package {package}, which does not load here ({reason}). Install it into the "
        f"Python that runs this (pip install {package}) and start again, or do without it."
    )


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
        raise ValueError(_how_to_install(package, user, error)) from error


def model_hash(path: Path) -> str:
    """Return the SHA-256 of a model: of its file, or of the config and the weights in its folder."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted([*path.glob("config.json"), *path.glob("*.safetensors")])
    for model_file in files:
        with model_file.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
