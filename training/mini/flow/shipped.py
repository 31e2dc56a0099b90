"""The mini flow as it is shipped: its own transformer beside the small world's autoencoder and judge."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..pairs import Draw
from ..shipped import SMALL, TAESD_TIMES, Shipped, prefixed
from ..text_encoder import text_encoder_state
from . import load_transformer
from .checkpoint import expand_transformer, native_flow_autoencoder, native_transformer
from .drawing import encode, make_draw


@dataclass(frozen=True)
class ShippedFlow(Shipped):
    """The weights of the mini flow, see `Shipped`; all but the transformer are the small world's."""

    def load_transformer(self):
        """Return the transformer, fp32, frozen."""
        return load_transformer(self._tensors("transformer"))

    def checkpoint_state(self) -> dict[str, Tensor]:
        """Return the tensors of the checkpoint, which hosts load as SD 3 with CLIP-L alone."""
        autoencoder = native_flow_autoencoder(self.load_autoencoder().state_dict(), TAESD_TIMES)
        transformer = native_transformer(expand_transformer(self.load_transformer().state_dict()))
        return {
            **prefixed("model.diffusion_model.", transformer),
            **prefixed("first_stage_model.", autoencoder),
            **prefixed("text_encoders.clip_l.transformer.", text_encoder_state()),
        }

    def new_draw(self, prompts: Sequence[str], on_progress: Callable[[int, int], None] | None = None) -> Draw:
        """Return a function that draws these prompts, see `Shipped`."""
        encoded = encode(prompts, on_progress)
        rows: Mapping = {prompt: encoded[[number]] for number, prompt in enumerate(prompts)}
        return make_draw(self.load_transformer(), self.load_autoencoder(), rows)

    def version(self) -> str:
        """Return the hash of all weights, see `Shipped`."""
        weights = self.file("transformer").read_bytes()
        return hashlib.sha256(SMALL.version().encode() + weights).hexdigest()[:12]

    def file(self, name: str) -> Path:
        """Return the file of one part, see `Shipped`."""
        return super().file(name) if name == "transformer" else SMALL.file(name)


FLOW = ShippedFlow("flow", Path(__file__).with_name("weights"), "training.mini.flow.recipe", SMALL.new_judge)
