"""Train the seven narrow experts that the repository ships."""

import json
import tempfile
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path

from torch import Tensor

from ...config import TrainConfig
from ...models.conditioning import Conditioning
from ...models.hashes import weights_hash
from ...models.noise import NoiseSchedule
from ...pairs import load_pairs
from ...pairs.encode import Encoders, encode_pairs
from ...pairs.sentences import with_sentences
from ...rules.categories import CATEGORIES
from ...trainer.kept import everyday_of
from ...trainer.loop import train
from ...trainer.result import training_metadata
from ...trainer.run import Callbacks
from ..architecture import load_unet
from ..expand import expand_unet
from ..pairs import PAIRS_PER_CATEGORY, make_draw, pairs_to_draw, write_pairs
from ..scenes import SIZE
from ..text_encoder import embed

CONFIG = TrainConfig()


def train_experts(
    unet, autoencoder, judge, embeds: dict[str, Tensor], on_progress: Callable[[int, int, float], None]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Draw the pairs of every category and train its expert.

    Args:
        unet: the narrow UNet, frozen.
        autoencoder: diffusers AutoencoderTiny.
        judge: judge of mini scenes, which filters the pairs.
        embeds: embedding, (77, 768), of every prompt of the pairs and of the empty prompt.
        on_progress: called with (step, total, loss).

    Returns:
        `<category>/<module>.up` and `.down`, fp32; and each category's `training_metadata` as JSON.
    """
    draw, schedule, tensors, metadata = (
        make_draw(unet, autoencoder, embeds),
        NoiseSchedule.scaled_linear(),
        {},
        {},
    )
    wide = load_unet({name: tensor.half() for name, tensor in expand_unet(unet.state_dict()).items()})
    known = dict(embeds)
    encoders = Encoders(
        image=lambda pictures: autoencoder.encode(pictures).latents,
        prompt=lambda prompt: Conditioning(known[prompt][None]),
        id="mini",
    )
    base_hash = weights_hash(wide)  # the experts are for the wide model, as hosts load it
    for number, category in enumerate(CATEGORIES):
        with tempfile.TemporaryDirectory() as folder:
            pairs = pairs_to_draw(category, PAIRS_PER_CATEGORY)
            write_pairs(Path(folder), category, pairs, draw=draw, judge=judge)
            written = load_pairs(Path(folder))
            kept = chain(*with_sentences(everyday_of(CONFIG), written.prompt_pairs))
            missing = [prompt for prompt in dict.fromkeys(kept) if prompt not in known]
            if missing:
                known.update(zip(missing, embed(missing), strict=True))
            data = encode_pairs(written, encoders, resolution=SIZE, everyday=everyday_of(CONFIG))

        def report(step: int, total: int, figures: Mapping[str, float], done: int = number) -> None:
            on_progress(done * total + step, len(CATEGORIES) * total, figures["loss"])

        result = train(unet, data, schedule, CONFIG, callbacks=Callbacks(on_progress=report))
        for module, layer in result.layers.items():
            tensors |= {f"{category}/{module}.up": layer.up, f"{category}/{module}.down": layer.down}
        facts = {
            "title": f"AlignGuard mini: {category}",
            "base_hash": base_hash,
            "pairs_hash": data.pairs_hash,
        }
        metadata[category] = json.dumps(training_metadata(result, schedule, **facts))
    return tensors, metadata
