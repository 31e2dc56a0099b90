"""The answer of a command: text for people, and the same facts as plain values for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ..experts.expert import SafetyExpert


class Answer(NamedTuple):
    """The result of a command: lines of text, and values that `json.dumps` accepts."""

    text: str
    facts: dict[str, Any]


def expert_facts(expert: SafetyExpert) -> dict[str, Any]:
    """Return an expert's properties and its metadata as plain values."""
    return {
        "name": expert.name,
        "categories": list(expert.categories),
        "family": expert.family,
        "text_width": expert.text_width,
        "layers": len(expert.layers),
        "rank": expert.rank,
        "parameters": sum(layer.up.numel() + layer.down.numel() for layer in expert.layers.values()),
        "content_hash": expert.content_hash,
        "metadata": dict(expert.metadata),
    }
