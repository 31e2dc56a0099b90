"""The mini worlds outside a server: train experts for the narrow UNet and measure them within minutes.

The narrow UNet computes the same as the wide UNet in ComfyUI (tests/mini/test_expansion.py), fifteen times
faster, so questions that need many runs (objectives, merge methods, noisy pairs) are answered here.
`safety.py` measures the merged expert of docs/measurements.md through the real server. `Lab` has what both
worlds share, `MiniLab` is the small world and `large_lab.LargeLab` the large one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, cached_property
from itertools import chain
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import dev
from measurement import Group, kept_groups, unsafe_group, unseen_words_group
from training.config import MergeConfig, TrainConfig
from training.experts.expert import SafetyExpert, load_expert, save_expert
from training.experts.low_rank import LowRank
from training.mini import shipped
from training.mini.build import build_mini
from training.mini.pairs import Draw, make_draw, slug, trained_scenes
from training.mini.recipe.experts import CONFIG
from training.mini.scenes import ALL_SCENES, SIZE, UNSAFE_ICONS
from training.mini.shipped import Shipped
from training.mini.text_encoder import embed, load_text_encoder
from training.models.conditioning import Conditioning
from training.models.noise import NoiseSchedule, Schedule
from training.pairs import SafetyPairs, load_pairs
from training.pairs.encode import Encoders, encode_pairs, encode_pictures
from training.pairs.everyday import Everyday, everyday
from training.pairs.pair import joined
from training.pairs.sentences import with_sentences
from training.pairs.training_data import TrainingData
from training.rules.categories import CATEGORIES
from training.trainer.kept import everyday_of
from training.trainer.loop import train

FOLDER = dev.ROOT / ".host"
# The recipe of the shipped experts at an eighth of the cost; preservation already holds the safe pictures.
RECIPE = replace(CONFIG, steps=150, batch_size=4, safe_prompt_weight=0.0)
WORDINGS = [{"synonym": synonym, "template": template} for synonym in (False, True) for template in (0, 1)]


class Lab:
    """The narrow model of a world with everything that training, merging and measuring need.

    A world says which pairs it has (`pairs`, `prompt_pairs`), which words name what must not be drawn
    (`unsafe_text`), and which prompts are to be embedded (`prompts`).

    Args:
        weights: of the world.
        name: of the folder that keeps what is made of it.
        seed_offset: added to the seeds of all pictures, to repeat a measurement with other noise.

    Attributes:
        unet: narrow network, frozen; every method restores it.
        schedule: noise schedule of its family.
        latent_shape: (c, h, w) of a latent.
        autoencoder: narrow autoencoder, frozen.
        judge: judge of the world's scenes.
        folder: keeps embeddings, experts and trials; its name has the version of the weights.
        recipe: how an expert is trained unless a benchmark says otherwise.
        prompts_per_category: calibration prompts of a merge.
        unsafe_text: one text that names what must not be drawn, as SLD takes it.
        files: those that decide how an expert comes out, beside the library's.
    """

    latent_shape = (4, 8, 8)
    recipe = RECIPE
    prompts_per_category = MergeConfig.prompts_per_category
    unsafe_text = ""
    files: tuple[Path, ...] = ()

    def __init__(self, weights: Shipped, name: str, seed_offset: int = 0) -> None:
        self.weights = weights
        self.unet, self.schedule = self.network()
        self.seed_offset = seed_offset
        self.autoencoder, self.judge = weights.load_autoencoder(), weights.load_judge()
        self.folder = FOLDER / f"{name}-{weights.version()}"

    def network(self) -> tuple[torch.nn.Module, Schedule]:
        """Return the narrow network, frozen, and its noise schedule."""
        return self.weights.load_unet(), NoiseSchedule.scaled_linear()

    def prompts(self) -> Iterable[str]:
        """Return the prompts to embed, beside the empty one, the unsafe text and what training keeps."""
        raise NotImplementedError

    def pairs(self, category: str) -> SafetyPairs:
        """Return the pairs of a category, drawn by the base model."""
        raise NotImplementedError

    def prompt_pairs(self, category: str) -> list[tuple[str, str]]:
        """Return the unsafe and the safe prompt of each different pair of a category."""
        raise NotImplementedError

    def everyday(self, num_kept: int, num_measured: int) -> Everyday:
        """Return the first everyday prompts that training may keep, and of those that are only measured."""
        return everyday(num_kept, num_measured)

    @cached_property
    def embeds(self) -> dict[str, Tensor]:
        """Embedding (77, 768) of each prompt that this lab may need; cached."""
        prompts = list(dict.fromkeys(["", self.unsafe_text, *self.prompts()]))
        file = self.folder / f"embeds_{name_of(prompts)}.safetensors"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file({"embeds": embed(prompts, load_text_encoder(self.weights.token_rows()))}, file)
        return dict(zip(prompts, load_file(file)["embeds"], strict=True))

    def encode(self, pairs: SafetyPairs, config: TrainConfig) -> TrainingData:
        """Return pairs encoded by the narrow encoders, with the everyday prompts that the options need."""
        needed = self.everyday(*map(len, everyday_of(config)))
        self.embed_more(chain(*with_sentences(needed, pairs.prompt_pairs)))
        return encode_pairs(pairs, self.encoders(), resolution=SIZE, everyday=needed)

    def embed_more(self, prompts: Iterable[str]) -> None:
        """Add the embeddings of prompts that `prompts` does not return; cached."""
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.embeds]
        if not missing:
            return
        file = self.folder / f"kept_{name_of(missing)}.safetensors"
        if not file.exists():
            encoded = embed(missing, load_text_encoder(self.weights.token_rows()))
            unfinished = file.with_suffix(f".{os.getpid()}")  # other processes may read the file meanwhile
            save_file({"embeds": encoded}, unfinished)
            os.replace(unfinished, file)
        self.embeds.update(zip(missing, load_file(file)["embeds"], strict=True))

    def latents(self, pictures: Sequence[Sequence[Path]]) -> list[list[Tensor]]:
        """Encode pictures for calibration with the narrow autoencoder."""
        return encode_pictures(pictures, self.encoders(), resolution=SIZE)

    def encoders(self) -> Encoders:
        """Return the narrow encoders."""
        return Encoders(
            image=lambda pixels: self.autoencoder.encode(pixels).latents,
            prompt=lambda prompt: Conditioning(self.embeds[prompt][None]),
            id="mini",
        )

    def expert(
        self, categories: Sequence[str], config: TrainConfig, prompts: Sequence[str] | None = None
    ) -> SafetyExpert:
        """Return an expert trained on the pairs of some categories; it is trained once per state of the code.

        Args:
            categories: categories whose pairs are used.
            config: options of the training.
            prompts: unsafe prompts of the pairs to use; None uses all pairs.
        """
        settings = f"{tuple(categories)} {config} {code_hash(*self.files)}"
        settings += f" {sorted(prompts)}" if prompts else ""
        key = hashlib.sha256(settings.encode()).hexdigest()[:16]
        file = self.folder / "trained" / f"{key}.safetensors"
        if not file.exists():
            pairs = joined([self.pairs(category) for category in categories])
            if prompts:
                used = tuple(pair for pair in pairs.pairs if pair.unsafe_prompt in prompts)
                pairs = replace(pairs, pairs=used)
            result = train(self.unet, self.encode(pairs, config), self.schedule, config)
            facts = {"alignguard.initial_a_hash": result.initial_a_hash}
            trained = SafetyExpert(result.layers, tuple(categories), "sd15", facts, file.name)
            with suppress(FileExistsError):  # another process was faster
                save_expert(trained, file)
        return load_expert(file)

    def calibration(self, prompts: Sequence[str]) -> Conditioning:
        """Return the conditioning of prompts, for calibration."""
        self.embed_more(prompts)
        return Conditioning(torch.stack([self.embeds[prompt] for prompt in prompts]))


class MiniLab(Lab):
    """The small world."""

    prompts_per_category = 10  # as many prompts as a category has in its pairs
    unsafe_text = ", ".join(UNSAFE_ICONS.values())  # all concepts, as in the papers

    def __init__(self, seed_offset: int = 0) -> None:
        super().__init__(shipped.SMALL, "mini", seed_offset)

    def prompts(self) -> list[str]:
        """Return the prompts of all scenes in every wording."""
        return [scene.prompt(**wording) for scene in ALL_SCENES for wording in WORDINGS]

    def pairs(self, category: str) -> SafetyPairs:
        """Return the pairs of a category that `python -m training mini` writes."""
        return load_pairs(build_mini(self.folder, categories=(category,))["pairs"] / slug(category))

    @staticmethod
    def prompt_pairs(category: str) -> list[tuple[str, str]]:
        """Return the prompts of the scenes that pairs may show, and of their safe twins."""
        scenes = trained_scenes(UNSAFE_ICONS[category])
        return [(scene.prompt(), scene.safe_twin().prompt()) for scene in scenes]

    def shipped_experts(self) -> list[SafetyExpert]:
        """Return the seven shipped experts, for the narrow UNet."""
        layers = shipped.load_expert_layers()
        return [SafetyExpert(layers[category], (category,), "sd15", {}, category) for category in CATEGORIES]

    def rates(
        self, layers: Mapping[str, LowRank], groups: Sequence[Group], per_prompt: int = 2
    ) -> dict[str, float]:
        """Draw groups with a LoRA on the UNet and return the rate of each group (`Group.rate`)."""
        return self.judged(self.pictures(layers, groups, per_prompt), groups, per_prompt)

    def pictures(
        self, layers: Mapping[str, LowRank], groups: Sequence[Group], per_prompt: int = 2
    ) -> dict[str, Tensor]:
        """Draw groups with a LoRA on the UNet; return (pictures, 3, 64, 64) in [-1, 1] by group.

        The seeds of a group do not depend on the other groups.
        """
        counts = [len(group.prompts) * per_prompt for group in groups]
        prompts = [prompt for group in groups for prompt in group.prompts for _ in range(per_prompt)]
        seeds = chain.from_iterable(map(range, counts))
        with applied(self.unet, layers):
            drawn = self.draw()(prompts, [1000 + self.seed_offset + seed for seed in seeds])
        return dict(zip((group.name for group in groups), drawn.split(counts), strict=True))

    def draw(self) -> Draw:
        """Return a function from prompts and seeds to pictures."""
        return make_draw(self.unet, self.autoencoder, self.embeds)

    def judged(
        self, pictures: Mapping[str, Tensor], groups: Sequence[Group], per_prompt: int = 2
    ) -> dict[str, float]:
        """Return the rate of each group in pictures drawn by `pictures`."""
        return {group.name: group.rate(self.judge.look(pictures[group.name]), per_prompt) for group in groups}


def groups_of(
    categories: Sequence[str] = CATEGORIES,
    *,
    num_prompts: int = 8,
    kept_scenes: int = 3,
    unseen: bool = False,
) -> list[Group]:
    """Return the groups of a measurement: unsafe prompts by category, then prompts to be kept.

    Args:
        categories: categories whose unsafe prompts are drawn.
        num_prompts: unsafe prompts per category.
        kept_scenes: scenes per safe counterpart and per neutral icon.
        unseen: whether to ask for the unsafe icon also by a word that no pair uses.
    """
    groups = [unsafe_group(category, num_prompts) for category in categories]
    if unseen:
        groups += [unseen_words_group(category, num_prompts) for category in categories]
    return [*groups, *kept_groups(kept_scenes)]


@contextmanager
def applied(unet: torch.nn.Module, layers: Mapping[str, LowRank]) -> Iterator[None]:
    """Add a LoRA to the weights inside the context."""
    weights = {name: unet.get_submodule(name).weight for name in layers}
    originals = {name: weight.detach().clone() for name, weight in weights.items()}
    try:
        with torch.no_grad():
            for name, layer in layers.items():
                weights[name].add_(layer.delta().reshape(weights[name].shape))
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(originals[name])


def name_of(prompts: Sequence[str]) -> str:
    """Return a name for a file with the embeddings of these prompts."""
    return hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:8]


def summary(rates: Mapping[str, float]) -> dict[str, float]:
    """Return the worst and the mean IP over all categories, and the rates of the prompts to be kept."""
    ip = [rates[category] for category in UNSAFE_ICONS if category in rates]
    unseen = [rate for name, rate in rates.items() if name.endswith("unseen word")]
    return {
        "ip_worst": max(ip),
        "ip_mean": sum(ip) / len(ip),
        **({"ip_unseen": sum(unseen) / len(unseen)} if unseen else {}),
        "counterparts": rates["safe counterparts"],
        "neutral": rates["neutral"],
    }


@cache
def code_hash(*others: Path) -> str:
    """Return a hash of the library's code and of other files."""
    digest = hashlib.sha256()
    for path in (*sorted((dev.ROOT / "training").rglob("*.py")), *others):
        digest.update(path.read_bytes())
    return digest.hexdigest()
