"""Measure what the README reports; run it with `python dev.py bench`."""

import argparse
import json
import logging
import sys
from pathlib import Path

import safety

import dev

OUT = dev.ROOT / "demo_output" / "bench.json"


def main() -> int:
    """Run the benchmarks and write `demo_output/bench.json`."""
    parser = argparse.ArgumentParser(prog="dev.py bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--methods", nargs="+", default=["co_merge"], help="merge methods to compare")
    parser.add_argument("--strength", type=float, default=1.0, help="of the merged expert")
    parser.add_argument("--per-prompt", type=int, default=4, help="pictures of each of a group's 16 prompts")
    parser.add_argument("--out", type=Path, default=OUT)
    known = parser.parse_args()
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.INFO)
    result = {"safety": safety.measure_methods(known.methods, known.strength, known.per_prompt)}
    known.out.parent.mkdir(parents=True, exist_ok=True)
    known.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    logging.getLogger("bench").info("written: %s", known.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
