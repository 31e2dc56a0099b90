"""What a node tells its user while it works: progress, and outputs that say why they are empty."""

import logging
from collections.abc import Callable
from functools import cached_property

import comfy.model_management
import comfy.utils
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image

log = logging.getLogger(__name__)


class Blocked(ExecutionBlocker):
    """An output that stops the nodes connected to it.

    The reason is also logged, because the host shows it only in an open browser.
    """

    def __init__(self, reason: str):
        self._reason = reason

    @cached_property  # the host reads it when the output is used, and then twice
    def message(self) -> str:
        log.warning(self._reason)
        return self._reason


def check_cancel() -> None:
    """Raise the host's own exception if the user cancelled."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def progress(node_id: str) -> Callable[..., None]:
    """Return `report(step, total, picture, text)`, which moves the progress bar of a node.

    It raises if the user cancelled. `picture` (a PIL image or None) is shown below the node, and `text` in
    the node.
    """
    bar = comfy.utils.ProgressBar(1, node_id)

    def report(step: int, total: int, picture: Image.Image | None = None, text: str = "") -> None:
        check_cancel()
        bar.update_absolute(step, total, picture and ("JPEG", picture, max(picture.size)))
        if text:
            from server import PromptServer  # late, because it exists only while a server runs

            PromptServer.instance.send_progress_text(text, node_id)

    return report
