"""The main rows of `own_table.py` through a real ComfyUI, fewer pictures each: do both say the same?

It proves the machinery, not a claim about Stable Diffusion.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from baselines.sld import PUBLISHED
from candidates import UNSAFE_TEXT, Candidate, candidates
from columns import Column, Drawer
from mini_lab import FOLDER, MiniLab
from style_lora import share
from tqdm import tqdm

from base_folder import link_folder, place_mini
from comfy_server import ComfyServer
from measurement import kept_groups, unsafe_group, unseen_words_group
from measurement import measure as measure_group
from training.config import MergeConfig
from training.expert import SafetyExpert, save_expert
from training.mini.build import CHECKPOINT, build_mini, version
from training.mini.expand import expand_layers, expand_unet
from training.mini.native_names import native_unet
from training.taxonomy import CATEGORIES
from training.tensor_file import write_tensors

ROWS = ("base", MergeConfig().method, "co_merge", "all-in-one", "ESD-u", "UCE", "SLD max")
PROMPTS = 2  # of every category, half of them by a word that no pair uses
KEPT_SCENES = 1  # of every icon to be kept
NODE = Path(__file__).with_name("sld_node")


def measure() -> dict:
    """Draw the same prompts in the server and outside it.

    Returns:
        Row -> IP over all categories, half on words no pair uses, and what is kept, by both ways of drawing.
    """
    lab = MiniLab()
    drawer, column = Drawer(lab, {}), _prompts()
    made = {name: make for name, make in candidates(lab).items() if name in ROWS}
    mini = build_mini(FOLDER / f"mini-{version()}", categories=())
    figures = {}
    with tempfile.TemporaryDirectory(prefix="alignguard_bench_") as folder:
        base = Path(folder)
        (base / "custom_nodes").mkdir()
        link_folder(NODE, base / "custom_nodes" / NODE.name)
        with ComfyServer(base, extra=("--disable-metadata",)) as server:
            place_mini(base, mini)
            for name in tqdm(ROWS, desc="rows", file=sys.stdout):
                candidate = made[name]()
                inside = _counts_inside(server, lab, name, candidate, column)
                outside = {group: drawer.hits(candidate, column, group) for group in column.groups}
                figures[name] = {**_row(inside, "server"), **_row(outside, "outside")}
                tqdm.write(f"{name}: {figures[name]}")
    return figures


def _prompts() -> Column:
    groups = [unsafe_group(category, PROMPTS // 2) for category in CATEGORIES]
    groups += [unseen_words_group(category, PROMPTS // 2) for category in CATEGORIES]
    return Column({group.name: group for group in (*groups, *kept_groups(KEPT_SCENES))})


def _counts_inside(server, lab: MiniLab, name: str, candidate: Candidate, column: Column) -> dict:
    model = _place(server, lab, name.replace(" ", "_"), candidate)
    counts = {}
    for group in column.groups.values():
        prefix = f"bench_{name.replace(' ', '_')}"
        rate, pictures = measure_group(
            server, lab.judge, group, CHECKPOINT, per_prompt=1, prefix=prefix, **model
        )
        counts[group.name] = (round(rate * len(pictures)), len(pictures))
    return counts


def _place(server: ComfyServer, lab: MiniLab, name: str, candidate: Candidate) -> dict:
    """Put a candidate where the server finds it; return what the graph must name."""
    if candidate.guidance:
        preset = next(key for key, config in PUBLISHED.items() if config == candidate.guidance)
        inputs = {"clip": ["model", 1], "unsafe": UNSAFE_TEXT, "preset": preset}
        return {"patch": ("BenchSafeLatentDiffusion", inputs)}
    if candidate.layers:
        file = server.models_dir / "safety_experts" / f"bench_{name}.safetensors"
        save_expert(SafetyExpert(expand_layers(candidate.layers), CATEGORIES, "sd15", {}, name), file)
        return {"expert": file.name}
    if not candidate.changes:
        return {}
    state = dict(lab.unet.state_dict())
    for parameter, delta in candidate.changes[""].items():
        state[parameter] = state[parameter] + delta
    file = server.models_dir / "diffusion_models" / f"bench_{name}.safetensors"
    wide = {name: tensor.half() for name, tensor in native_unet(expand_unet(state)).items()}
    write_tensors(file, {f"model.diffusion_model.{name}": tensor for name, tensor in wide.items()}, {})
    return {"unet": file.name}


def _row(counts: Mapping[str, tuple[int, int]], where: str) -> dict[str, str]:
    unsafe = [count for name, count in counts.items() if name.split(",")[0] in CATEGORIES]
    kept = [count for name, count in counts.items() if name.split(",")[0] not in CATEGORIES]
    parts = {"IP": unsafe, "kept": kept}
    return {f"{what}, {where}": share(*map(sum, zip(*each, strict=True))) for what, each in parts.items()}
