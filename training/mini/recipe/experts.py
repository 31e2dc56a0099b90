"""Train the seven narrow experts that the repository ships, with the defaults of `TrainConfig`."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from ...config import TrainConfig
from ...data import load_pairs
from ...data.cache import encode_pairs
from ...noise import NoiseSchedule
from ...taxonomy import CATEGORIES
from ...trainer import train
from ..pairs import PAIRS_PER_CATEGORY, make_draw, write_pairs
from ..scenes import SIZE


def train_experts(
    unet, autoencoder, judge, embeds: dict[str, Tensor], on_progress: Callable[[int, int, float], None]
) -> dict[str, Tensor]:
    """Draw every category's pairs and train its expert.

    Args:
        unet: the narrow UNet, frozen.
        autoencoder: diffusers AutoencoderTiny.
        judge: of mini scenes, filters the pairs.
        embeds: embedding (77, 768) of every prompt in use, and of the empty one.
        on_progress: called with (step, total, loss).

    Returns:
        `<category>/<module>.up` and `.down`, fp32.
    """
    draw, config, tensors = make_draw(unet, autoencoder, embeds), TrainConfig(), {}
    for number, category in enumerate(CATEGORIES):
        with tempfile.TemporaryDirectory() as folder:
            write_pairs(Path(folder), category, count=PAIRS_PER_CATEGORY, draw=draw, judge=judge)
            data = encode_pairs(
                load_pairs(Path(folder)),
                encode_image=lambda pictures: autoencoder.encode(pictures).latents,
                encode_prompt=lambda prompt: embeds[prompt][None],
                encoder_id="mini",
                resolution=SIZE,
            )

        def report(step: int, total: int, loss: float, done: int = number) -> None:
            on_progress(done * total + step, len(CATEGORIES) * total, loss)

        layers = train(unet, data, NoiseSchedule.scaled_linear(), config, on_progress=report).layers
        for module, layer in layers.items():
            tensors |= {f"{category}/{module}.up": layer.up, f"{category}/{module}.down": layer.down}
    return tensors
