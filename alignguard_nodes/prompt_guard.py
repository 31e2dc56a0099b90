"""Node: Prompt Guard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from . import host
from .files import file_fingerprint
from .guarding import (
    answer,
    check_lines,
    guard_checks,
    guard_inputs,
    guard_outputs,
    lazy_replacement,
    opened,
)
from .inputs import ABSENT, CATEGORY, NONE, checked

if TYPE_CHECKING:
    from ..training.guards import Guard


class PromptGuard(io.ComfyNode):
    """Ask a guard about a prompt before anything is drawn."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.node_schema(
            node_id="AlignGuardPromptGuard",
            display_name="Prompt Guard",
            category=CATEGORY,
            search_aliases=["latent guard", "nsfw filter", "prompt filter", "block", "concept", "alignguard"],
            in_sight=(
                "text",
                "guard",
                "threshold",
                "mode",
                "replacement",
                "strength_safe",
                "strength_unsafe",
            ),
            description="Block or replace a prompt that comes near a harmful concept, before anything is "
            "drawn (Latent Guard). Advice, not a guarantee: it misses some and blocks some harmless ones.",
            inputs=[
                *guard_inputs(
                    "guard",
                    "Train Prompt Guard",
                    1.0,
                    "The CLIP of the checkpoint that draws, directly from its loader. Not needed by guards "
                    "with the encoder sentence.",
                ),
                io.String.Input(
                    "concepts",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="One a line: look only for these. Empty looks for all of the guard's. A word it "
                    "was not trained with is scored, and the report says that it is not measured.",
                ),
            ],
            outputs=guard_outputs("How near the prompt is to a concept, from -1 to 1."),
        )

    @classmethod
    def validate_inputs(
        cls,
        guard: str | None,
        mode: str | None,
        trained: Any = ABSENT,
        replacement: str | None = "",
        strength_safe: float | None = 0.0,
        strength_unsafe: float | None = 1.0,
        concepts: str | None = "",
    ) -> bool | str:
        strengths = {"strength_safe": strength_safe, "strength_unsafe": strength_unsafe}
        has_trained = trained is not ABSENT
        checks = guard_checks(guard, mode, has_trained=has_trained, replacement=replacement, **strengths)
        return checked(*checks, (check_lines, concepts))

    @classmethod
    def fingerprint_inputs(cls, guard: str, **_: object) -> str:
        return "" if guard == NONE else file_fingerprint(host.guard_path(guard))

    @classmethod
    def check_lazy_status(cls, text: str, mode: str, **inputs: Any) -> list[str]:
        return lazy_replacement(lambda: _chosen(**inputs), text, mode, inputs.get("replacement", ""))

    @classmethod
    def execute(cls, text: str, mode: str, **widgets: Any) -> io.NodeOutput:
        return answer("Prompt Guard", _chosen(**widgets), text, mode, widgets)


def _chosen(
    guard: str,
    threshold: float,
    clip: Any = None,
    trained: Guard | None = None,
    concepts: str = "",
    **_: Any,
) -> Guard:
    """Return the guard with the threshold and for the concepts that the widgets say."""
    chosen = opened(guard, threshold, clip, trained)
    return chosen.only(concepts.splitlines()) if concepts.strip() else chosen
