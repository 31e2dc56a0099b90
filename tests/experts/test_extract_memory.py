"""An extraction reads models far larger than the memory it takes, measured in a separate process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from big_models import SMALL, write_pair

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which only Linux has")
def test_a_large_sharded_pair_is_extracted_in_a_fraction_of_its_size(tmp_path):
    size = write_pair(tmp_path, SMALL, shard_bytes=50_000_000)
    code = (
        "import json, pathlib, big_models\n"
        f"print(json.dumps(big_models.measure(pathlib.Path({str(tmp_path)!r}))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)
    assert result["ranks"] == [4]
    # two models, of which the largest pair of tensors and some copies of it are in memory
    assert result["peak_memory"] - result["memory_before"] < 0.6 * 2 * size
