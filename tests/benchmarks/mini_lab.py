"""The mini world outside a server: train experts of the narrow UNet and see what they do, in minutes.

The narrow UNet computes what the wide one in ComfyUI computes (tests/mini/test_expansion.py), fifteen times
faster, so questions that need many runs (objectives, merge methods, noisy pairs) are answered here. What the
README says of the product is measured through the real server, by `safety.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import dev
from measurement import Group, kept_groups, unsafe_group, unseen_words_group
from training.config import TrainConfig
from training.data import load_pairs
from training.data.cache import TrainingData, encode_pairs
from training.expert import SafetyExpert
from training.low_rank import LowRank
from training.mini import shipped
from training.mini.build import build_mini, version
from training.mini.pairs import make_draw, slug
from training.mini.scenes import ALL_SCENES, SIZE, UNSAFE_ICONS
from training.mini.text_encoder import embed
from training.noise import NoiseSchedule
from training.taxonomy import CATEGORIES
from training.trainer import TrainResult, train

FOLDER = dev.ROOT / ".host"
WORDINGS = [{"synonym": synonym, "template": template} for synonym in (False, True) for template in (0, 1)]


class MiniLab:
    """The narrow mini model with everything needed to train, merge and measure.

    Attributes:
        unet: narrow UNet, frozen; every method leaves it as it was.
        schedule: of its family.
        seed_offset: added to the seeds of all pictures, for repeats.
    """

    def __init__(self, seed_offset: int = 0) -> None:
        self.unet = shipped.load_unet()
        self.schedule = NoiseSchedule.scaled_linear()
        self.seed_offset = seed_offset
        self._autoencoder, self._judge = shipped.load_autoencoder(), shipped.load_judge()

    @cached_property
    def embeds(self) -> dict[str, Tensor]:
        """Embedding (77, 768) of every prompt of the mini world and of the empty one; made once, kept."""
        prompts = ["", *dict.fromkeys(scene.prompt(**wording) for scene in ALL_SCENES for wording in WORDINGS)]
        file = FOLDER / f"mini-{version()}" / "embeds.safetensors"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file({"embeds": embed(prompts)}, file)
        return dict(zip(prompts, load_file(file)["embeds"], strict=True))

    def data(self, category: str) -> TrainingData:
        """Return the pairs of a category, encoded: those `python -m training mini` writes."""
        folder = build_mini(FOLDER / f"mini-{version()}", categories=(category,))["pairs"] / slug(category)
        return self.encode(folder)

    def encode(self, folder: Path) -> TrainingData:
        """Return a folder of pairs, encoded by the narrow autoencoder."""
        return encode_pairs(
            load_pairs(folder),
            encode_image=lambda pictures: self._autoencoder.encode(pictures).latents,
            encode_prompt=lambda prompt: self.embeds[prompt][None],
            encoder_id="mini",
            resolution=SIZE,
        )

    def train(self, data: TrainingData, config: TrainConfig) -> TrainResult:
        """Train an expert of the narrow UNet."""
        return train(self.unet, data, self.schedule, config)

    def expert(self, category: str, result: TrainResult) -> SafetyExpert:
        """Return what was trained as an expert, to merge it."""
        return SafetyExpert(result.layers, (category,), "sd15", {}, category)

    def shipped_experts(self) -> list[SafetyExpert]:
        """Return the seven experts the repository ships, on the narrow UNet."""
        layers = shipped.load_expert_layers()
        return [SafetyExpert(layers[category], (category,), "sd15", {}, category) for category in CATEGORIES]

    def calibration(self, prompts: Sequence[str]) -> Tensor:
        """Return embeddings of prompts, (len(prompts), 77, 768)."""
        return torch.stack([self.embeds[prompt] for prompt in prompts])

    def rates(
        self, layers: Mapping[str, LowRank], groups: Sequence[Group], per_prompt: int = 2
    ) -> dict[str, float]:
        """Draw groups with a LoRA on the UNet; return each group's rate, see `Group.rate`."""
        with applied(self.unet, layers):
            draw = make_draw(self.unet, self._autoencoder, self.embeds)
            prompts = [prompt for group in groups for prompt in group.prompts for _ in range(per_prompt)]
            seeds = chain.from_iterable(range(len(group.prompts) * per_prompt) for group in groups)
            verdicts = self._judge.look(draw(prompts, [1000 + self.seed_offset + seed for seed in seeds]))
        rates, start = {}, 0
        for group in groups:
            end = start + len(group.prompts) * per_prompt
            rates[group.name] = group.rate(verdicts[start:end], per_prompt)
            start = end
        return rates


def groups_of(
    categories: Sequence[str] = CATEGORIES, *, num_prompts: int = 8, kept_scenes: int = 3, unseen: bool = False
) -> list[Group]:
    """Return the groups of a measurement: unsafe prompts by category, then what must be kept.

    Args:
        categories: whose unsafe prompts to draw.
        num_prompts: of each category.
        kept_scenes: scenes of each safe counterpart and neutral icon.
        unseen: also ask for the unsafe icon by a word that no pair uses.
    """
    groups = [unsafe_group(category, num_prompts) for category in categories]
    if unseen:
        groups += [unseen_words_group(category, num_prompts) for category in categories]
    return [*groups, *kept_groups(kept_scenes)]


@contextmanager
def applied(unet: torch.nn.Module, layers: Mapping[str, LowRank]) -> Iterator[None]:
    """Add a LoRA to the weights while the context lasts."""
    weights = {name: unet.get_submodule(name).weight for name in layers}
    kept = {name: weight.detach().clone() for name, weight in weights.items()}
    try:
        with torch.no_grad():
            for name, layer in layers.items():
                weights[name].add_(layer.delta().reshape(weights[name].shape))
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(kept[name])


def summary(rates: Mapping[str, float]) -> dict[str, float]:
    """Return the worst and mean IP over all categories, and what is kept."""
    ip = [rates[category] for category in UNSAFE_ICONS if category in rates]
    unseen = [rate for name, rate in rates.items() if name.endswith("unseen word")]
    return {
        "ip_worst": max(ip),
        "ip_mean": sum(ip) / len(ip),
        **({"ip_unseen": sum(unseen) / len(unseen)} if unseen else {}),
        "counterparts": rates["safe counterparts"],
        "neutral": rates["neutral"],
    }
