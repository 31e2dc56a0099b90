"""Measure what the README reports; run it with `python dev.py bench [part ...]`.

To add a part: write its file with `measure() -> dict` of figures, then add its line to `PARTS`.
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
PARTS = {  # name, which is also that of its file -> what it measures
    "flops": "operations per pair, against the published trainer",
    "steps": "time of a training step, against other trainers' steps",
    "memory": "bytes of a training step and of a merge",
    "adapter_layer": "peft's adapter against a plain LoRA layer",
    "in_host": "import at start, and applying an expert against the stock LoRA loader",
    "merge_speed": "merging against PEFT at SDXL's shapes, and what calibration costs",
    "efficacy": "what training reaches on the mini model, three seeds, and what each choice does",
    "objectives": "candidates for the objective on the mini model: what makes a picture follow, 3 seeds",
    "merge_quality": "what each merge method leaves of seven experts on the mini model, three seeds",
    "merge_scaling": "what merges keep as the number of experts grows from 2 to 28, on the mini model",
    "baseline_grid": "the published knobs of ESD-u and UCE on the mini model",
    "style_lora": "what a style LoRA does to a merged expert, by how it was trained, on the mini model",
    "word_attack": "DiffZOO's search over words and random rewordings against a merged expert, mini model",
    "own_table": "base, experts, merges, ESD-u, UCE, SLD through the real server: IP, retention, time",
    "noisy_pairs": "what swapped pairs cost on the mini model, and what weighing them wins back, three seeds",
    "safety": "pictures judged unsafe before and after, through the real server",
}

log = logging.getLogger("bench")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the parts, write each into the file as soon as it is there, and print it as a table."""
    known = _arguments(argv)
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.INFO)
    for name in known.parts or PARTS:
        log.info("--- %s: %s", name, PARTS[name])
        start = time.monotonic()
        figures = _measure(name, known)
        seconds = time.monotonic() - start
        keep(known.out, name, figures, seconds)
        log.info("%s\n%s took %.0f s", as_table(figures), name, seconds)
    log.info("written: %s", known.out)
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parts = "; ".join(f"{name}: {what}" for name, what in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="dev.py bench", description=__doc__.splitlines()[0], epilog=parts, allow_abbrev=False
    )
    parser.add_argument(
        "parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; all where none is named"
    )
    parser.add_argument("--methods", nargs="+", default=["regmean"], help="safety: merge methods to compare")
    parser.add_argument("--strength", type=float, default=1.0, help="safety: of the merged expert")
    parser.add_argument("--per-prompt", type=int, default=4, help="safety: pictures of each prompt")
    parser.add_argument("--out", type=Path, default=OUT, help="file to write; parts it already has are kept")
    known = parser.parse_args(argv)
    unknown = [part for part in known.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}. The parts are {', '.join(PARTS)}.")
    return known


def _measure(name: str, known: argparse.Namespace) -> dict:
    part = importlib.import_module(name)  # late: most parts need no server, and some little memory
    if name == "safety":
        return part.measure_methods(known.methods, known.strength, known.per_prompt)
    return part.measure()


def keep(out: Path, name: str, figures: dict, seconds: float) -> None:
    """Put the figures of a part into the file, beside those of the other parts; a torn file is never left.

    Args:
        out: JSON file, made where it is missing.
        name: of the part.
        figures: what was measured.
        seconds: it took.
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
