"""What a calibrated method lets itself be told: the interface of collectors, see `activations`."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from torch import Tensor

from ..config import MergeConfig
from ..experts.low_rank import LowRank
from .members import Member

_MAX_TOKENS = 256  # of one input: neighbouring pixels say much the same


class Collector(Protocol):
    """Reads what the base model gives to each layer, and keeps only what its methods need of it.

    Attributes:
        kind: name of what it collects, for the cache and for messages.
        needs_categories: whether each input must name its category; such a pass never stops early.
        options: fields of `MergeConfig` that decide what is found.
    """

    kind: ClassVar[str]
    needs_categories: ClassVar[bool]
    options: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        members: Sequence[Member],
        parts: Mapping[str, Sequence[LowRank]],
        categories: Sequence[str] | None,
        config: MergeConfig,
    ) -> None:
        """Prepare for experts, given by layer at strength 1, on the device of the model.

        Args:
            members: the experts and their strengths.
            parts: update of each expert in each layer.
            categories: of all inputs that will come, if known.
            config: of the merge.
        """

    def begin(self, number: int, categories: Sequence[str] | None) -> None:
        """Announce a pass of the model over one batch.

        Args:
            number: of the round that the batch belongs to.
            categories: of the batch's inputs, if known.
        """

    def add(self, module: str, inputs: Tensor) -> None:
        """Take what a layer gets in the announced pass.

        Args:
            module: path of the layer.
            inputs: as its forward gets them, of any type; see `tokens_of`.
        """

    def agreement(self) -> float | None:
        """Return how far two halves of the inputs lead to the same choice, in [0, 1]; None if unknown."""

    def layers(self) -> dict[str, Any]:
        """Return what was found, by layer, on the CPU; each a tuple of tuples of tensors."""

    @staticmethod
    def layer_of(groups: Sequence[Sequence[Tensor]]) -> Any:
        """Return what `layers` gave for one layer, from its tensors as fp32."""


def tokens_of(inputs: Tensor) -> Tensor:
    """Bring what a layer gets to (batch, tokens, d_in), fp32; of many tokens, evenly spaced ones."""
    if inputs.ndim == 4:  # 1x1 convolution: (batch, d_in, h, w), a pixel is a token
        tokens = inputs.flatten(2).transpose(1, 2)
    else:  # the timestep embedding has no tokens
        tokens = inputs[:, None] if inputs.ndim == 2 else inputs
    return tokens[:, :: -(-tokens.shape[1] // _MAX_TOKENS)].float()
