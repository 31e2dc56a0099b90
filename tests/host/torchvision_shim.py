"""Make a torchvision built for CUDA importable beside a torch built for the CPU.

`dev.py` copies this file into `.venv`, where a `.pth` line installs the finder whenever Python starts. torch
is imported only when torchvision is. Such a torchvision cannot load its compiled operators, and its import
then fails because nothing declares `torchvision::nms` and `torchvision::qnms`. Declaring their schemas is
enough for all code that does not call them.
"""

import importlib.machinery
import sys
from pathlib import Path

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_libraries = []  # a declaration lives as long as its Library object


class _DeclareBeforeTorchvision:
    """A finder that finds nothing; it declares the schemas once, just before torchvision is imported."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(cls)
            if _is_cuda_build():
                _declare()


def install() -> None:
    """Put the finder in front of the others, once."""
    if _DeclareBeforeTorchvision not in sys.meta_path:
        sys.meta_path.insert(0, _DeclareBeforeTorchvision)


def _is_cuda_build() -> bool:
    spec = importlib.machinery.PathFinder.find_spec("torchvision")
    if spec is None or not spec.origin:
        return False
    version = Path(spec.origin).with_name("version.py")
    # a CPU build declares these operators itself
    return version.is_file() and "+cu" in version.read_text(encoding="utf-8")


def _declare() -> None:
    import torch  # late, because not every Python in the venv needs torch

    if torch.version.cuda or getattr(torch.version, "hip", None):
        return
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(operator + _SCHEMA)
    _libraries.append(library)
