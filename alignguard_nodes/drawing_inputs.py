"""The widgets by which nodes draw as KSampler does, and what they are where a graph leaves them out."""

from comfy_api.latest import io

from . import host
from .sockets import resolution_input

SAMPLER, SCHEDULER = "euler", "normal"


def sampling_inputs(*, optional: bool = False) -> list[io.Input]:
    """Return the widgets for sampler and scheduler."""
    return [
        io.Combo.Input(
            "sampler_name",
            options=host.SAMPLERS,
            default=SAMPLER,
            optional=optional,
            tooltip="As in KSampler: use what the model is used with.",
        ),
        io.Combo.Input(
            "scheduler",
            options=host.SCHEDULERS,
            default=SCHEDULER,
            optional=optional,
            tooltip="As in KSampler.",
        ),
    ]


def side_input() -> io.Int.Input:
    """Return the widget for the side of the pictures."""
    return resolution_input(
        "Side of the pictures in pixels: what the model was made for; the mini model: 64."
    )
