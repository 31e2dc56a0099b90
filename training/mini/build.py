"""Build the mini model for a host: a checkpoint that loads as SD 1.5, its pairs, judge and experts."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..experts.expert import SafetyExpert, save_expert
from ..rules.categories import CATEGORIES
from ..system.tensors import open_tensors, write_tensors
from . import shipped
from .architecture import AUTOENCODER_WIDTH
from .expand import expand_autoencoder, expand_layers, expand_unet, native_autoencoder, native_unet
from .pairs import PAIRS_PER_CATEGORY, make_draw, prompts_of, slug, write_pairs
from .text_encoder import embed, text_encoder_state

CHECKPOINT, JUDGE = "alignguard_mini.safetensors", "judge.safetensors"
TUNED = "alignguard_mini_tuned.safetensors"
TUNED_CATEGORY = "shocking"  # category that the tuned UNet was aligned against
LATENT_SCALE = 0.18215  # SD 1.5: the host divides by it when encoding and multiplies before the UNet
TAESD_WIDTH = 64

Progress = Callable[[str, int, int], None]


def build_mini(
    out: Path,
    *,
    pairs_per_category: int = PAIRS_PER_CATEGORY,
    categories: Sequence[str] = CATEGORIES,
    on_progress: Progress | None = None,
) -> dict[str, Path]:
    """Write the checkpoint, a tuned UNet, the judge, pairs and the shipped experts; existing parts are kept.

    Args:
        out: folder, created if needed.
        pairs_per_category: pairs to draw for each category; the few that the judge rejects are left out.
        categories: categories to draw pairs of.
        on_progress: called with (stage, done, total).

    Returns:
        Paths of the files `checkpoint`, `tuned` and `judge` and of the folders `pairs` and `experts`.

    Raises:
        ValueError: if the folder holds the checkpoint of another version of the mini model.
    """
    report = on_progress or (lambda stage, done, total: None)
    paths = {
        "checkpoint": out / CHECKPOINT,
        "tuned": out / TUNED,
        "judge": out / JUDGE,
        "pairs": out / "pairs",
        "experts": out / "experts",
    }
    _build_checkpoint(paths["checkpoint"], report)
    if not paths["tuned"].exists():
        write_tensors(paths["tuned"], tuned_state(), {"alignguard.mini": version()})
    if not paths["judge"].exists():
        write_tensors(paths["judge"], shipped.load_judge().state_dict(), {})
    _build_experts(paths["experts"])
    missing = [category for category in categories if not (paths["pairs"] / slug(category)).exists()]
    paths["pairs"].mkdir(parents=True, exist_ok=True)
    if missing:
        _build_pairs(paths["pairs"], missing, pairs_per_category, report)
    return paths


def version() -> str:
    """Return the hash of the shipped weights, 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(shipped.FOLDER.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def checkpoint_state() -> dict[str, Tensor]:
    """Return the tensors of the checkpoint, fp16."""
    unet = native_unet(expand_unet(shipped.load_unet().state_dict()))
    times = TAESD_WIDTH // AUTOENCODER_WIDTH
    autoencoder = native_autoencoder(expand_autoencoder(shipped.load_autoencoder().state_dict(), times))
    autoencoder |= {"vae_scale": torch.tensor(LATENT_SCALE), "vae_shift": torch.tensor(0.0)}
    state = _prefixed("model.diffusion_model.", unet) | _prefixed("first_stage_model.", autoencoder)
    state |= _prefixed("cond_stage_model.transformer.", text_encoder_state())
    return {name: tensor.half() if tensor.ndim else tensor.float() for name, tensor in state.items()}


def tuned_state() -> dict[str, Tensor]:
    """Return the wide UNet with a shipped expert merged into its weights, fp16: a model tuned for safety."""
    unet = {name: tensor.half() for name, tensor in expand_unet(shipped.load_unet().state_dict()).items()}
    for module, layer in expand_layers(shipped.load_expert_layers()[TUNED_CATEGORY]).items():
        weight = unet[f"{module}.weight"]
        unet[f"{module}.weight"] = (weight.float() + layer.delta()).half()
    return _prefixed("model.diffusion_model.", native_unet(unet))


def _build_checkpoint(path: Path, report: Progress) -> None:
    if path.exists():
        with open_tensors(path) as state:
            existing = state.metadata.get("alignguard.mini")
        if existing != version():
            raise ValueError(
                f"{path} is version {existing} of the mini model; this pack contains version {version()}. "
                "Remove the folder or choose another one."
            )
        return
    report("checkpoint", 0, 1)
    write_tensors(
        path, checkpoint_state(), {"alignguard.mini": version(), "modelspec.title": "AlignGuard mini"}
    )
    report("checkpoint", 1, 1)


def _build_experts(folder: Path) -> None:
    metadata = shipped.load_expert_metadata()
    for category, layers in shipped.load_expert_layers().items():
        path = folder / f"alignguard_mini_{slug(category)}.safetensors"
        if layers and not path.exists():
            facts = metadata[category] | {"alignguard.mini": version()}
            expert = SafetyExpert(expand_layers(layers), (category,), "sd15", facts, path.name)
            save_expert(expert, path)


def _build_pairs(folder: Path, categories: Sequence[str], count: int, report: Progress) -> None:
    prompts = prompts_of(categories, count)
    texts = embed(prompts, on_progress=lambda done, total: report("text embeddings", done, total))
    embeds = dict(zip(prompts, texts, strict=True))
    draw = make_draw(shipped.load_unet(), shipped.load_autoencoder(), embeds)
    judge = shipped.load_judge()
    for number, category in enumerate(categories):
        report("pairs", number, len(categories))
        unfinished = Path(tempfile.mkdtemp(prefix=".drawing_", dir=folder))
        try:
            write_pairs(unfinished, category, count=count, draw=draw, judge=judge)
            os.replace(unfinished, folder / slug(category))  # a folder of pairs is complete or absent
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    report("pairs", len(categories), len(categories))


def _prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}
