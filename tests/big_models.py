"""A base model and a tuned model of any size on disk, and the memory that extraction needs for them.

As a program, `python tests/big_models.py FOLDER sd15` (or `sdxl`) writes the pair as people have it, the base
in fp16 and the tuned model in fp32 shards (5.2 GB, or 15.4 GB), extracts an expert prints time and memory.
"""

import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

SHARD_BYTES = 500_000_000
RANK = 4
_TUNED = (".to_q.weight", ".to_k.weight", ".to_v.weight", ".to_out.0.weight", ".net.2.weight")
SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD15 = {"cross_attention_dim": 768}  # everything else is diffusers' default
SIZES = {"sd15": SD15, "sdxl": SDXL}
SMALL = {
    "block_out_channels": (320, 640),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 768,
}


def write_pair(
    root: Path, config: dict, shard_bytes: int = SHARD_BYTES, tuned_dtype: torch.dtype = torch.float16
) -> int:
    """Write `base` (fp16) and `tuned` as shards in diffusers' format; return the bytes of the base.

    The tuned model has a LoRA of rank 4 in every attention and last feed-forward layer, and shifted norms.
    """
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in UNet2DConditionModel(**config).state_dict().items()}
    writers = [_Shards(root / name / "unet", shard_bytes) for name in ("base", "tuned")]
    for name, shape in sorted(shapes.items()):
        generator = torch.Generator().manual_seed(len(name))
        weight = (0.02 * torch.randn(shape, generator=generator)).half()
        change = torch.zeros(())
        if name.endswith(_TUNED):
            up = torch.randn(shape[0], RANK, generator=generator)
            change = 1e-3 * up @ torch.randn(RANK, shape[1], generator=generator)
        elif name.endswith("norm1.weight"):
            change = torch.tensor(0.01)
        writers[0].add(name, weight)
        writers[1].add(name, (weight.float() + change).to(tuned_dtype))
    return [writer.finish() for writer in writers][0]


class _Shards:
    def __init__(self, folder: Path, shard_bytes: int) -> None:
        folder.mkdir(parents=True)
        self._folder, self._limit = folder, shard_bytes
        self._waiting: dict[str, torch.Tensor] = {}
        self._map: dict[str, str] = {}
        self._bytes = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        self._waiting[name] = tensor
        if sum(tensor.nbytes for tensor in self._waiting.values()) >= self._limit:
            self._write()

    def finish(self) -> int:
        self._write()
        index = self._folder / "diffusion_pytorch_model.safetensors.index.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": self._map}))
        return self._bytes

    def _write(self) -> None:
        if self._waiting:
            file = f"diffusion_pytorch_model-{len(set(self._map.values())) + 1:05}.safetensors"
            save_file(self._waiting, self._folder / file)
            self._map |= dict.fromkeys(self._waiting, file)
            self._bytes += sum(tensor.nbytes for tensor in self._waiting.values())
            self._waiting = {}


def measure(root: Path) -> dict:
    """Extract an expert in this process; return seconds, ranks, and memory in bytes (Linux only)."""
    from training.config import ExtractConfig
    from training.experts.extract import extract_expert

    before = memory()["VmRSS"]
    started, worked = time.perf_counter(), time.process_time()
    expert = extract_expert(root / "base", root / "tuned", ExtractConfig())
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - worked,
        "layers": len(expert.layers),
        "ranks": sorted({layer.rank for layer in expert.layers.values()}),
        "change": json.loads(expert.metadata["alignguard.change"]),
        "memory_before": before,
        "peak_memory": memory()["VmHWM"],
    }


def memory() -> dict[str, int]:
    """Return the current and the peak resident memory of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Vm")}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if not (folder / "base").exists():
        write_pair(folder, SIZES[sys.argv[2]], tuned_dtype=torch.float32)
    sys.stdout.write(json.dumps(measure(folder), indent=1) + "\n")
