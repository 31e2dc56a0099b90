"""A data set that does not fit in memory is encoded and read, a few rows at a time."""

import subprocess
import sys

import pytest

LINUX = sys.platform == "linux"
PROGRAM = """
import resource, sys
from pathlib import Path
import torch
from PIL import Image
from training.models.conditioning import Conditioning
from training.pairs.encode import Encoders, encode_pairs
from training.pairs.report import PairsReport
from training.pairs import SafetyPairs
from training.pairs.pair import PreferencePair

torch.set_num_threads(1)
folder, width, count = Path(sys.argv[1]), 8192, 64  # 2.5 MB a prompt, 160 MB in all
for name in ("safe", "unsafe"):
    Image.new("RGB", (16, 16), "red" if name == "safe" else "blue").save(folder / f"{name}.png")
pairs = SafetyPairs(
    folder,
    tuple(
        PreferencePair(str(n), ("hate",), f"unsafe {n}", "safe", folder / "safe.png", folder / "unsafe.png")
        for n in range(count)
    ),
    (),
    PairsReport(count),
)
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 80 * 2**20,) * 2)
data = encode_pairs(
    pairs,
    Encoders(
        image=lambda pixels: torch.zeros(1, 4, 2, 2),
        prompt=lambda text: Conditioning(torch.full((1, 77, width), float(len(text)))),
        id="fake",
    ),
    resolution=16,
    cache_dir=folder / "cache",
)
for start in range(0, count, 4):
    rows = data.prompts[data.unsafe_prompt[start : start + 4]]
    assert rows.text_embeds[:, 0, 0].tolist() == [float(len(f"unsafe {n}")) for n in range(start, start + 4)]
try:
    data.prompts[data.unsafe_prompt]
except (RuntimeError, MemoryError):
    print("all at once do not fit")
"""


@pytest.mark.slow
@pytest.mark.skipif(not LINUX, reason="limits the memory of a process as Linux does")
def test_rows_are_read_as_they_are_needed(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "all at once do not fit"
