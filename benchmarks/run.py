"""Measure the figures of docs/measurements.md; run it with `python dev.py bench [part ...]`.

To add a part, write a file whose `measure() -> dict` returns the figures, and add its line to `PARTS`.
"""

import argparse
import importlib
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import dev
from table import as_table

OUT = dev.ROOT / "demo_output" / "bench.json"
PARTS = {  # name of the part and of its file -> what it measures
    "flops": "operations per pair, against the published trainer",
    "steps": "time of a training step, against other trainers",
    "memory": "bytes of a training step and of a merge",
    "at_scale": "what 30,000 pairs, 28 experts and three families cost, from counted operations and bytes",
    "adapter_layer": "peft's adapter against a plain LoRA layer",
    "in_host": "import at start, and applying an expert against the stock LoRA loader",
    "merge_speed": "merging against PEFT at SDXL's shapes, and what calibration costs",
    "efficacy": "what training achieves on the mini model, and the effect of each choice, three seeds",
    "objectives": "candidates for the objective on the mini model, three seeds",
    "merge_quality": "how much each merge method keeps of seven experts on the mini model, three seeds",
    "merge_scaling": "how much merges keep as the number of experts grows from 2 to 28, on the mini model",
    "baseline_grid": "the published parameters of ESD-u and UCE on the mini model",
    "style_lora": "the effect of a style LoRA on a merged expert, by way of training, on the mini model",
    "word_attack": "DiffZOO's word search and random rewordings against a merged expert, on the mini model",
    "own_table": "base, experts, merges, ESD-u, UCE, SLD through the real server: IP, retention, time",
    "large_world": "every method on the large world, from pairs alone: IP, retention, three seeds",
    "large_stress": "every method on the large world under stress, with a style LoRA, under a word search",
    "large_scale": "what merges of 7 to 70 experts per concept keep on the large world, and what they cost",
    "large_cost": "quality against steps and operations on the large world, with and without a bank",
    "flow": "seven experts on the mini flow: objectives, layers, merges",
    "guards": "Latent Guard on the mini worlds: seen and unseen prompts, words and concepts",
    "interpreters": "GuardT2I on the large world: hidden, plain and harmless prompts, a search over words",
    "safety_cost": "the safety cost model on pairs and categories that it has not seen, on the mini model",
    "noisy_pairs": "the cost of swapped pairs on the mini model, and what weighing and relabelling recover",
    "shield": "guard, rewriting, expert and gate together, on the large world; scopes on drawn clips",
    "survival": "SIGKILL at random moments over every command that writes: what is torn, lost or different",
    "load": "thousands of prompts of two clients through the real server: errors, memory, time against stock",
    "fuzzing": "random and damaged files for every reader: what is read, refused, or a crash",
    "safety": "share of unsafe pictures before and after, through the real server",
}
COUNTED = ("survival", "fuzzing", "load")  # take --count

log = logging.getLogger("bench")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the parts; write and print the figures of each as soon as they are ready."""
    arguments = _arguments(argv)
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.INFO)
    for name in arguments.parts or PARTS:
        log.info("--- %s: %s", name, PARTS[name])
        start = time.monotonic()
        figures = _measure(name, arguments)
        seconds = time.monotonic() - start
        keep(arguments.out, name, figures, seconds)
        log.info("%s\n%s took %.0f s", as_table(figures), name, seconds)
    log.info("written: %s", arguments.out)
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parts = "; ".join(f"{name}: {description}" for name, description in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="dev.py bench", description=__doc__.splitlines()[0], epilog=parts, allow_abbrev=False
    )
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; default: all")
    parser.add_argument("--methods", nargs="+", default=["regmean"], help="safety: merge methods to compare")
    parser.add_argument("--strength", type=float, default=1.0, help="safety: strength of the merged expert")
    parser.add_argument("--per-prompt", type=int, default=4, help="safety: pictures per prompt")
    parser.add_argument(
        "--count", type=int, help="survival: kills; fuzzing: inputs for each reader; load: prompts"
    )
    parser.add_argument("--rows", nargs="+", default=[], help="large_world: rows to measure; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="large_world: seeds; default: three")
    parser.add_argument(
        "--out", type=Path, default=OUT, help="file to write; it keeps the figures of other parts"
    )
    arguments = parser.parse_args(argv)
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; choose from {', '.join(PARTS)}.")
    return arguments


def _measure(name: str, arguments: argparse.Namespace) -> dict:
    part = importlib.import_module(name)  # late: a part should not load what only others need
    if name == "safety":
        return part.measure_methods(arguments.methods, arguments.strength, arguments.per_prompt)
    if name == "large_world":
        return part.measure(arguments.rows, arguments.seeds or part.SEEDS)
    return part.measure(*filter(None, [arguments.count])) if name in COUNTED else part.measure()


def keep(out: Path, name: str, figures: dict, seconds: float) -> None:
    """Write the figures of a part into the file atomically, keeping those of other parts.

    Args:
        out: JSON file, created if it is missing.
        name: name of the part.
        figures: its figures.
        seconds: time that the part took.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    result = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    circumstances = {
        "at": time.strftime("%Y-%m-%d %H:%M"),
        "seconds": round(seconds, 1),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    result[name] = figures
    result.setdefault("circumstances", {})[name] = circumstances
    temporary = out.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, out)


if __name__ == "__main__":
    sys.exit(main())
