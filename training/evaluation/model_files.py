"""What names a model on the user's disk: the hash of its files."""

import hashlib
from pathlib import Path


def model_hash(path: Path) -> str:
    """Return the SHA-256 of a model: of its file, or the config and weights in its folder."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted([*path.glob("config.json"), *path.glob("*.safetensors")])
    for each in files:
        with each.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
