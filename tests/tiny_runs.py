"""Training runs on the tiny UNet, short enough for a test, and ways to interrupt them."""

import json
import math

import torch

from builders import preference_pair, write_picture
from tiny import tiny_data, tiny_unet
from training.config import TrainConfig
from training.models.conditioning import Conditioning
from training.models.noise import NoiseSchedule
from training.pairs import SafetyPairs
from training.pairs.encode import Encoders, encode_pairs
from training.pairs.report import PairsReport
from training.trainer.loop import train
from training.trainer.run import Callbacks
from training.trainer.run_folder import Storage

SMALL = TrainConfig(
    steps=3,
    batch_size=2,
    rank=2,
    learning_rate=1e-2,
    safe_prompt_weight=1.0,
    caption_dropout=0.5,
    validation=0.0,
    seed=3,
    beta=500.0,  # otherwise it is measured first
    lr_schedule="constant",  # so that a run can be prolonged
)
SCHEDULE = NoiseSchedule.scaled_linear()
SHARED_UNET = tiny_unet()  # every run leaves it as it was


class Cancel(Exception):  # noqa: N818 - the host's exception is not named Error either
    """Raised from a callback, as a host does to cancel."""


def run(config=SMALL, *, unet=SHARED_UNET, data=None, schedule=SCHEDULE, **options):
    """Train; beside the options of `train`, those of `Storage` and `Callbacks` may be named."""
    stored = {name: options.pop(name) for name in ("run_dir", "resume") if name in options}
    passed_on = {name: options.pop(name) for name in ("free_bytes", "processes") if name in options}
    return train(
        unet,
        data or tiny_data(),
        schedule,
        config,
        storage=Storage(**stored),
        callbacks=Callbacks(**options),
        **passed_on,
    )


def cancel_at(step):
    def report(done, total, loss):
        if done == step:
            raise Cancel

    return report


def equal_layers(one, other):
    return one.layers.keys() == other.layers.keys() and all(
        torch.equal(one.layers[name].up, other.layers[name].up)
        and torch.equal(one.layers[name].down, other.layers[name].down)
        for name in one.layers
    )


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def broken_after(step):
    """Return data whose winners become NaN after a step, and the `on_progress` that makes them so."""
    data = tiny_data(num_pairs=2)

    def report(done, total, loss):
        if done == step:
            data.winner.fill_(math.nan)

    return data, report


def two_buckets(folder):
    """Return the encoded data of four tall and two square pairs, without neutral images."""
    pairs = []
    for number in range(6):
        size = (32, 64) if number < 4 else (32, 32)
        pair = preference_pair(number, ("hate",), f"bad {number}", f"good {number}", folder)
        for picture, blue in ((pair.winner, 255), (pair.loser, 0)):
            write_picture(picture, (40 * number, 0, blue), size)
        pairs.append(pair)
    return encode_pairs(
        SafetyPairs(folder, tuple(pairs), (), PairsReport(6)),
        Encoders(
            image=lambda pixels: torch.nn.functional.avg_pool2d(pixels, 8)[:, [0, 1, 2, 2]],
            prompt=lambda text: Conditioning(torch.full((1, 77, 16), float(len(text)))),
            id="fake",
        ),
        resolution=48,
        mirrored=True,
        bucketed=True,
        cache_dir=folder / "cache",
    )
