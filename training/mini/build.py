"""Build a mini model for a host: a checkpoint, its judge and pairs, and experts."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..experts.expert import SafetyExpert, save_expert
from ..rules.categories import CATEGORIES
from ..system.tensors import open_tensors, write_tensors
from . import shipped
from .expand import expand_layers, expand_unet, native_unet
from .flow.shipped import FLOW
from .large.pairs import neutral_prompts as large_neutral_prompts
from .large.pairs import pairs_to_draw as large_pairs_to_draw
from .large.shipped import LARGE
from .pairs import (
    PAIRS_PER_CATEGORY,
    PairToDraw,
    neutral_prompts,
    pairs_to_draw,
    prompts_of,
    slug,
    write_pairs,
)
from .shipped import Shipped, prefixed

CHECKPOINT, LARGE_CHECKPOINT = "alignguard_mini.safetensors", "alignguard_mini_large.safetensors"
FLOW_CHECKPOINT = "alignguard_mini_flow.safetensors"
JUDGE, NEUTRAL = "judge.safetensors", "alignguard_mini_neutral.txt"
TUNED = "alignguard_mini_tuned.safetensors"
TUNED_CATEGORY = "shocking"  # category that the tuned UNet was aligned against

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class World:
    """What is built of a world.

    Attributes:
        shipped: its weights.
        checkpoint: file name of its checkpoint.
        title: title of the checkpoint in its metadata.
        pairs_to_draw: takes a category and a number of pairs.
        neutral_prompts: returns prompts to measure what is kept; training never sees them.
    """

    shipped: Shipped
    checkpoint: str
    title: str
    pairs_to_draw: Callable[[str, int], list[PairToDraw]]
    neutral_prompts: Callable[[], list[str]]


WORLDS = {
    "small": World(shipped.SMALL, CHECKPOINT, "AlignGuard mini", pairs_to_draw, neutral_prompts),
    "large": World(
        LARGE,
        LARGE_CHECKPOINT,
        "AlignGuard mini, large world",
        large_pairs_to_draw,
        large_neutral_prompts,
    ),
    "flow": World(FLOW, FLOW_CHECKPOINT, "AlignGuard mini, flow", pairs_to_draw, neutral_prompts),
}


def build_mini(
    out: Path,
    *,
    world: str = "small",
    pairs_per_category: int = PAIRS_PER_CATEGORY,
    categories: Sequence[str] = CATEGORIES,
    on_progress: Progress | None = None,
) -> dict[str, Path]:
    """Write the checkpoint, the judge, pairs and neutral prompts of a world; existing parts are kept.

    Args:
        out: folder, created if needed.
        world: key of `WORLDS`. The small world also gets its shipped experts and a UNet tuned for safety.
        pairs_per_category: pairs to draw for each category; the few that the judge rejects are left out.
        categories: categories to draw pairs of.
        on_progress: called with (stage, done, total).

    Returns:
        Paths of the files `checkpoint`, `judge` and `neutral` and of the folder `pairs`; of the small world
        also of the file `tuned` and of the folder `experts`.

    Raises:
        ValueError: if the folder holds another world, or the checkpoint of another version of this one.
        FileNotFoundError: if weights are missing.
    """
    report = on_progress or (lambda stage, done, total: None)
    parts = WORLDS[world]
    _check_world(out, world)
    files = {"checkpoint": parts.checkpoint, "judge": JUDGE, "neutral": NEUTRAL, "pairs": "pairs"}
    paths = {name: out / file for name, file in files.items()}
    _build_checkpoint(paths["checkpoint"], parts, report)
    if not paths["judge"].exists():
        write_tensors(paths["judge"], parts.shipped.load_judge().state_dict(), {})
    if not paths["neutral"].exists():
        paths["neutral"].write_text("\n".join(parts.neutral_prompts()) + "\n", encoding="utf-8")
    if world == "small":
        paths |= _build_experts(out)
    missing = [category for category in categories if not (paths["pairs"] / slug(category)).exists()]
    paths["pairs"].mkdir(parents=True, exist_ok=True)
    if missing:
        wanted = {category: parts.pairs_to_draw(category, pairs_per_category) for category in missing}
        _build_pairs(paths["pairs"], wanted, parts.shipped, report)
    return paths


def version() -> str:
    """Return the version of the small world, 12 hexadecimal digits, see `Shipped.version`."""
    return shipped.SMALL.version()


def tuned_state() -> dict[str, Tensor]:
    """Return the small world's wide UNet with a shipped expert merged in, fp16: a model tuned for safety."""
    unet = {name: tensor.half() for name, tensor in expand_unet(shipped.load_unet().state_dict()).items()}
    for module, layer in expand_layers(shipped.load_expert_layers()[TUNED_CATEGORY]).items():
        weight = unet[f"{module}.weight"]
        unet[f"{module}.weight"] = (weight.float() + layer.delta()).half()
    return prefixed("model.diffusion_model.", native_unet(unet))


def _check_world(out: Path, world: str) -> None:
    for name, parts in WORLDS.items():
        if name != world and (out / parts.checkpoint).exists():
            raise ValueError(f"{out} holds the {name} world. Choose another folder for the {world} one.")


def _build_checkpoint(path: Path, world: World, report: Progress) -> None:
    version = world.shipped.version()
    if path.exists():
        with open_tensors(path) as state:
            existing = state.metadata.get("alignguard.mini")
        if existing != version:
            raise ValueError(
                f"{path} is version {existing} of the mini model; this pack contains version {version}. "
                "Remove the folder or choose another one."
            )
        return
    report("checkpoint", 0, 1)
    metadata = {"alignguard.mini": version, "modelspec.title": world.title}
    state = world.shipped.checkpoint_state()
    half = {name: tensor.half() if tensor.ndim else tensor.float() for name, tensor in state.items()}
    write_tensors(path, half, metadata)
    report("checkpoint", 1, 1)


def _build_experts(out: Path) -> dict[str, Path]:
    tuned, folder = out / TUNED, out / "experts"
    if not tuned.exists():
        write_tensors(tuned, tuned_state(), {"alignguard.mini": version()})
    metadata = shipped.load_expert_metadata()
    for category, layers in shipped.load_expert_layers().items():
        path = folder / f"alignguard_mini_{slug(category)}.safetensors"
        if layers and not path.exists():
            facts = metadata[category] | {"alignguard.mini": version()}
            expert = SafetyExpert(expand_layers(layers), (category,), "sd15", facts, path.name)
            save_expert(expert, path)
    return {"tuned": tuned, "experts": folder}


def _build_pairs(
    folder: Path, wanted: Mapping[str, Sequence[PairToDraw]], weights: Shipped, report: Progress
) -> None:
    prompts = prompts_of([pair for of_category in wanted.values() for pair in of_category])
    draw = weights.new_draw(prompts, lambda done, total: report("text embeddings", done, total))
    judge = weights.load_judge()
    for number, (category, of_category) in enumerate(wanted.items()):
        report("pairs", number, len(wanted))
        unfinished = Path(tempfile.mkdtemp(prefix=".drawing_", dir=folder))
        try:
            write_pairs(unfinished, category, of_category, draw=draw, judge=judge)
            os.replace(unfinished, folder / slug(category))  # a folder of pairs is complete or absent
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    report("pairs", len(wanted), len(wanted))
