"""Interface for collecting calibration statistics, see `calibrate`."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from torch import Tensor

from ..config import MergeConfig
from ..experts.low_rank import LowRank
from .members import Members

NOT_FINITE = (
    "The base model or an expert is damaged, or the base overflows; use it in fp32 or bf16."  # advice
)
_MAX_TOKENS = 256  # of one input: neighbouring pixels say much the same


class Collector(Protocol):
    """Reads the inputs of the layers and keeps only what its merge method needs.

    Attributes:
        kind: name of the statistics, for the cache and for messages.
        needs_categories: whether every input must name its category; such a pass never stops early.
        options: fields of `MergeConfig` that the statistics depend on.
    """

    kind: ClassVar[str]
    needs_categories: ClassVar[bool]
    options: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        members: Members,
        parts: Mapping[str, Sequence[LowRank]],
        categories: Sequence[str] | None,
        config: MergeConfig,
    ) -> None:
        """Prepare for a pass of the base model.

        Args:
            members: the experts of the merge.
            parts: update of each expert in each layer at strength 1, on the device of the base model.
            categories: category of every input of the pass; None if unknown.
            config: of the merge.
        """

    def begin(self, round_number: int, categories: Sequence[str] | None) -> None:
        """Announce one forward pass of a batch.

        Args:
            round_number: the round that the batch belongs to.
            categories: category of each input of the batch; None if unknown.
        """

    def add(self, module: str, inputs: Tensor) -> None:
        """Read the inputs of a layer in the announced forward pass.

        Args:
            module: path of the layer.
            inputs: as the layer's forward gets them, of any type; see `tokens_of`.
        """

    def agreement(self) -> float | None:
        """Return the share of choices on which two halves of the inputs agree, in [0, 1]; None if unknown."""

    def layers(self) -> dict[str, Any]:
        """Return the statistics by layer, on the CPU; each is a tuple of tuples of tensors."""

    @staticmethod
    def layer_of(groups: Sequence[Sequence[Tensor]]) -> Any:
        """Rebuild the statistics of one layer, as `layers` returns them, from their fp32 tensors."""


def tokens_of(inputs: Tensor) -> Tensor:
    """Reshape the inputs of a layer to (batch, tokens, d_in), fp32; of many tokens, take evenly spaced ones.

    Args:
        inputs: (batch, tokens, d_in); (batch, d_in) for the timestep embedding, which has no tokens; or
            (batch, d_in, h, w) for a convolution, where each pixel is a token.
    """
    if inputs.ndim == 4:
        tokens = inputs.flatten(2).transpose(1, 2)
    else:
        tokens = inputs[:, None] if inputs.ndim == 2 else inputs
    return tokens[:, :: -(-tokens.shape[1] // _MAX_TOKENS)].float()
