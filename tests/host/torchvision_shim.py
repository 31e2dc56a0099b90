"""Let a torchvision built for CUDA be imported beside a torch built for the CPU.

`dev.py` copies this file into `.venv`, where a `.pth` line installs the finder at every start of Python.
torch itself is imported only when torchvision is. Such a torchvision cannot load its compiled operators, and
then stops at import because nobody declared `torchvision::nms` and `torchvision::qnms`; declaring their two
schemas is enough for everything that does not call them.
"""

import importlib.machinery
import sys
from pathlib import Path

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept = []  # the declarations live as long as the Library object


class _DeclareBeforeTorchvision:
    """A finder that finds nothing: it acts once, when torchvision is about to be imported."""

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
    # a CPU build brings working operators and must not meet a second declaration
    return version.is_file() and "+cu" in version.read_text(encoding="utf-8")


def _declare() -> None:
    import torch  # late: not every Python that starts in the venv wants torch

    if torch.version.cuda or getattr(torch.version, "hip", None):
        return
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(operator + _SCHEMA)
    _kept.append(library)
