"""What a node shows below itself: images, and a text under them."""

from typing import Any

from comfy_api.latest import ui
from torch import Tensor

from ...training.experts.change_facts import extraction_facts
from ...training.experts.merge_facts import merge_facts
from .. import host
from .extraction_picture import draw_extraction
from .merge_picture import draw_merge


def preview(text: str, *images: Tensor) -> dict[str, Any]:
    """Return a node's `ui`: images above a text.

    Args:
        text: shown below the images.
        images: IMAGE each, (n, h, w, 3) in [0, 1]. The host writes them to its `temp` folder, so unsafe
            pictures in them must be blurred.

    Returns:
        What the host sends to the browser: the list of the files under `images`, the text under `text`.
    """
    shown = ui.PreviewText(text).as_dict()
    if not images:
        return shown
    files = [file for image in images for file in ui.PreviewImage(image).as_dict()["images"]]
    return {"images": files, **shown}


def expert_preview(expert: Any, text: str) -> dict[str, Any]:
    """Return a node's `ui`: a text and, for a merged or extracted expert, the picture of that above it.

    Args:
        expert: a `SafetyExpert`; its metadata says whether it was merged or extracted, and from what.
        text: shown below the picture.
    """
    for read, draw in ((merge_facts, draw_merge), (extraction_facts, draw_extraction)):
        facts = read(expert.metadata, expert.layers)
        if facts and facts.layers:
            return preview(text, host.image_tensor(draw(facts)))
    return preview(text)
