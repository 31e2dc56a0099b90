"""The cost of the pack in ComfyUI: its import at start, and applying an expert against the stock LoRA loader.

Both run in a process that starts as ComfyUI does, but without its server.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import dev
from comfy_server import host_folder, server_environment
from training.mini.build import CHECKPOINT, build_mini, version

STARTS = 3  # a process imports a module only once, so each start is a new process
REPEATS = 20
STARTED = """
import sys
host, pack, *arguments = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, host)
import comfy.options
comfy.options.enable_args_parsing()
import utils.extra_config  # before nodes, which puts another utils.py first on the path
import asyncio, json, time
import torch
import nodes
"""
IMPORT = (
    STARTED
    + """
import comfy_config.config_parser  # imported by the host for the first pack
from torch.utils._python_dispatch import TorchDispatchMode
class Operations(TorchDispatchMode):
    count = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        Operations.count += 1
        return func(*args, **(kwargs or {}))
earlier = set(sys.modules)
start = time.perf_counter()
with Operations():
    loaded = asyncio.run(nodes.load_custom_node(pack))
milliseconds = 1000 * (time.perf_counter() - start)
new = {name.partition(".")[0] for name in sys.modules.keys() - earlier}
heavy = sorted(new & {"diffusers", "peft", "transformers", "accelerate"})
print(json.dumps({"loaded": loaded, "ms": milliseconds, "operations": Operations.count, "heavy": heavy}))
"""
)
APPLY = (
    STARTED
    + """
import importlib, comfy.sd, comfy.utils
asyncio.run(nodes.load_custom_node(pack))
name = pack.replace(".", "_x_")
library = importlib.import_module(name + ".training.experts.expert")
border = importlib.import_module(name + ".alignguard_nodes.host")
from pathlib import Path
checkpoint, file, repeats = arguments
model = comfy.sd.load_checkpoint_guess_config(checkpoint, output_vae=False, output_clip=False)[0]
def stock():
    lora = comfy.utils.load_torch_file(file, safe_load=True)
    return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0)[0]
def ours():
    return border.apply_expert(model, library.load_expert(Path(file)), strength=1.0)[0]
def patched(loader):
    copy = loader()
    start = time.perf_counter()
    copy.patch_model()
    seconds = time.perf_counter() - start
    copy.unpatch_model()
    return seconds
times = {kind: {"load": [], "patch": []} for kind in ("stock", "ours")}
with torch.inference_mode():
    for turn in range(int(repeats) + 1):
        for kind, loader in (("stock", stock), ("ours", ours)):
            start = time.perf_counter()
            copy = loader()
            seconds = time.perf_counter() - start
            if turn:
                times[kind]["load"].append(seconds)
                times[kind]["patch"].append(patched(loader))
    layers = {kind: len(loader().patches) for kind, loader in (("stock", stock), ("ours", ours))}
print(json.dumps({"times": times, "layers": layers}))
"""
)


def measure() -> dict:
    """Measure the milliseconds of both, and the heavy packages and torch operations of a start."""
    with tempfile.TemporaryDirectory(prefix="alignguard_bench_") as folder:
        starts = [_run(IMPORT, Path(folder)) for _ in range(1 + STARTS)][1:]  # the first one compiles
        applied = _apply(Path(folder))
    return {
        "import ms": statistics.median(start["ms"] for start in starts),
        "torch operations at import": max(start["operations"] for start in starts),
        "heavy packages imported": ", ".join(starts[0]["heavy"]) or "none",
        **applied,
    }


def _apply(folder: Path) -> dict:
    mini = build_mini(dev.ROOT / ".host" / f"mini-{version()}", categories=())
    expert = next(mini["experts"].glob("*.safetensors"))
    result = _run(APPLY, folder, mini["experts"].parent / CHECKPOINT, expert, REPEATS)
    times, layers = result["times"], result["layers"]
    assert layers["stock"] == layers["ours"] > 0, layers
    rows = {}
    for part, text in (("load", "file to patched MODEL"), ("patch", "patching the weights")):
        stock, ours = times["stock"][part], times["ours"][part]
        rows[text] = {
            "stock ms": 1000 * statistics.median(stock),
            "ours ms": 1000 * statistics.median(ours),
            "ratio": statistics.median(our_s / stock_s for our_s, stock_s in zip(ours, stock, strict=True)),
        }
    return rows


def _run(script: str, folder: Path, *arguments: object) -> dict:
    command = [sys.executable, "-c", script, host_folder(), dev.ROOT, *arguments]
    environment = server_environment() | {"PYTHONPYCACHEPREFIX": str(folder / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    process = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=folder, env=environment
    )
    if process.returncode:
        raise RuntimeError(f"the process of the host failed:\n{process.stderr[-2000:]}")
    return json.loads(process.stdout.splitlines()[-1])
