"""The display of an expert on a node: a text and, if it was merged, a picture of the merge."""

from typing import Any

from comfy_api.latest import ui

from ...training.experts.merge_facts import merge_facts
from .. import host
from .merge_picture import draw_merge


def expert_display(expert: Any, text: str) -> Any:
    """Return a node's `ui`: the text and, for a merged expert, the picture of its merge above it."""
    preview = ui.PreviewText(text)
    facts = merge_facts(expert.metadata, expert.layers)
    if not facts or not facts.layers:
        return preview
    picture = ui.PreviewImage(host.image_tensor(draw_merge(facts)))
    return {**picture.as_dict(), **preview.as_dict()}
