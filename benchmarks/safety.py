"""Inappropriate probability and retention of merged experts, measured on pictures from a real ComfyUI."""

import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

import dev
from base_folder import place_mini
from comfy_server import ComfyServer
from measurement import Group, kept_groups, measure, unsafe_groups
from training.evaluation.statistics import wilson
from training.mini.build import CHECKPOINT, build_mini, version
from training.mini.pairs import safe_scenes, slug, trained_scenes
from training.mini.scenes import UNSAFE_ICONS
from training.mini.shipped import load_judge

PROMPTS = 16  # prompts per unsafe group
KEPT_SCENES = 4  # prompts per icon to be kept
log = logging.getLogger("bench")


def measure_methods(methods: Sequence[str], strength: float, per_prompt: int) -> dict:
    """Merge the shipped experts by each method and measure them against the base model.

    Args:
        methods: keys of MERGE_METHODS.
        strength: strength at which the merged expert is applied.
        per_prompt: pictures per prompt; 4 gives 64 pictures per unsafe group.

    Returns:
        Rates by state (`base` and the methods) and group, with their 95 % intervals.
    """
    mini = build_mini(
        dev.ROOT / ".host" / f"mini-{version()}",
        categories=(),  # the shipped experts are measured; nothing is trained
        on_progress=lambda *step: log.info("mini model: %s %d/%d", *step),
    )
    judge = load_judge()
    groups = [*unsafe_groups(PROMPTS), *kept_groups(KEPT_SCENES)]
    table: dict[str, dict] = {}
    with (
        tempfile.TemporaryDirectory(prefix="alignguard_bench_") as folder,
        ComfyServer(Path(folder), extra=("--disable-metadata",)) as server,
    ):
        place_mini(Path(folder), mini)
        experts = {**{method: _merge(server, method) for method in methods}, "base": None}
        work = [(state, group) for state in experts for group in groups]
        for state, group in tqdm(work, desc="groups", file=sys.stdout):
            extra = {"expert": experts[state], "strength": strength} if experts[state] else {}
            rate, drawn = measure(
                server, judge, group, CHECKPOINT, per_prompt=per_prompt, prefix=f"bench_{state}", **extra
            )
            table.setdefault(state, {})[group.name] = _row(rate, len(drawn))
            tqdm.write(f"{state}: {group.name} {rate:.3f} of {len(drawn)}")
    _log_table(table, groups)
    return table


def _merge(server: ComfyServer, method: str) -> str:
    """Merge the shipped experts in the server and return the file name for the Load node."""
    graph = {"base": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}}}
    merge = {
        "method": method,
        "model": ["base", 0],
        "clip": ["base", 1],
        "calibration": "\n".join(_calibration()),
        "resolution": 64,
    }
    for number, category in enumerate(UNSAFE_ICONS, 1):
        name = f"alignguard_mini_{slug(category)}.safetensors"
        graph[f"load{number}"] = {
            "class_type": "AlignGuardLoadSafetyExpert",
            "inputs": {"expert_name": name, "strength": 1.0},
        }
        merge[f"expert_{number}"] = [f"load{number}", 1]
    graph["merge"] = {"class_type": "AlignGuardMergeSafetyExperts", "inputs": merge}
    inputs = {"expert": ["merge", 0], "filename_prefix": f"bench_{method}", "dtype": "fp32"}
    graph["save"] = {"class_type": "AlignGuardSaveSafetyExpert", "inputs": inputs}
    server.run(graph, timeout_s=1800)
    folder = server.output_dir / "loras"
    return next(folder.rglob(f"bench_{method}*.safetensors")).relative_to(folder).as_posix()


def _calibration() -> list[str]:
    """Return one line `category: prompt` for each unsafe prompt of the pairs, `neutral` for the safe ones."""
    groups = {category: trained_scenes(icon) for category, icon in UNSAFE_ICONS.items()}
    groups["neutral"] = safe_scenes()
    return [f"{name}: {scene.prompt()}" for name, scenes in groups.items() for scene in scenes]


def _row(rate: float, n: int) -> dict:
    low, high = wilson(round(rate * n), n)  # the rate is a count over n
    return {"rate": rate, "low": low, "high": high, "n": n}


def _log_table(table: dict[str, dict], groups: Sequence[Group]) -> None:
    log.info("\n%-20s%5s%s", "group", "n", "".join(f"{state:>24}" for state in table))
    for group in groups:
        cells = "".join(
            "{rate:>9.3f} ({low:.2f}-{high:.2f})".format(**rows[group.name]) for rows in table.values()
        )
        log.info("%-20s%5d%s", group.name, table["base"][group.name]["n"], cells)
