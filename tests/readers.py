"""Readers of files that may come from elsewhere, and a valid file of each, for tests with hostile files."""

import json
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save

from builders import coprov2_names, pair_row, seeded, write_csv, write_picture, write_rows
from tiny_costs import ENCODER as IMAGE_ENCODER
from tiny_costs import tiny_cost
from tiny_guards import ENCODER, WIDTH
from training.evaluation.cost_model import read_cost_model
from training.evaluation.prompt_sets import load_prompt_set
from training.experts.expert import load_expert
from training.guards import ConceptGuard, open_guard
from training.guards.calibration import Calibration
from training.guards.concept_guard import GuardConcept
from training.guards.concept_head import ConceptHead, HeadShape
from training.pairs import load_pairs
from training.system.pictures import image_facts, read_rgb
from training.trainer.state import State, load_newest, save_state

ROOT = Path(__file__).resolve().parents[1]
LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
PEFT_KEYS = [f"base_model.model.{LAYER}.lora_{side}.weight" for side in "AB"]
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["to_k"], "alpha_pattern": {"x": 1}}


class Reader(NamedTuple):
    """A reader and the file that is attacked.

    Attributes:
        file: name of the attacked file in a folder.
        read: reads the folder.
        prepare: writes everything but the attacked file.
        seed: returns the bytes of a valid file.
    """

    file: str
    read: Callable[[Path], Any]
    prepare: Callable[[Path], Any]
    seed: Callable[[], bytes]


def nothing(folder: Path) -> None:
    """Write nothing beside the attacked file."""


def factors() -> list[torch.Tensor]:
    """Return A (2, 768) and B (32, 2) of one cross-attention layer of SD 1.5."""
    return [torch.full(shape, 0.01) for shape in ((2, 768), (32, 2))]


def expert_bytes(keys: list[str] | None = None, **metadata: str) -> bytes:
    """Return a small expert under PEFT's keys, or under others."""
    named = dict(zip(keys or PEFT_KEYS, factors(), strict=True))
    return save(named, metadata={"format": "pt", "alignguard.family": "sd15", **metadata})


def with_header(header: Any, data: bytes = b"") -> bytes:
    """Return a safetensors file with any header; a text is written as it is."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + data


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """Return a PNG that claims a size, whatever its data holds."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def _pictures(folder: Path) -> None:
    for tone, name in enumerate(("u.png", "s.png", *coprov2_names(0))):
        write_picture(folder / name, (tone, 0, 9))


@cache
def _made(write: Callable[[Path], Path]) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return write(Path(folder)).read_bytes()


def _state(folder: Path) -> Path:
    values = {"losses": [0.5], "metrics": {"step": 1}, "validations": [], "scaler": {}}
    save_state(folder, State(1, {"adapter.x": torch.ones(2)}, values))
    return next(folder.glob("*.safetensors"))


def _manifest(folder: Path) -> Path:
    return write_rows(folder / "x", [pair_row("1", unsafe_image="u.png", safe_image="s.png")])


def _coprov2(folder: Path) -> Path:
    rows = zip(("a skull", "a kite"), coprov2_names(0), ("Hate",) * 2, strict=True)
    return write_csv(folder / "x", [("prompt", "image", "category"), *rows])


def tiny_guard() -> ConceptGuard:
    """Return a guard of two concepts, not trained."""
    concepts = tuple(GuardConcept(word, "violence") for word in ("sword", "axe"))
    head, rows = ConceptHead.drawn(HeadShape(WIDTH, 2, 4, 4), seeded(0)), torch.eye(2, WIDTH)
    return ConceptGuard(head, concepts, rows, ENCODER, Calibration(0.5, 0.05, 20, 1, 20, "0" * 64), 0.5)


def _guard_file(folder: Path) -> Path:
    return tiny_guard().file().write(folder / "x")


def _guard(folder: Path) -> Any:
    guard = open_guard(folder / "g.safetensors", {ENCODER.kind: lambda: ENCODER})
    return guard.look("a red sword").report(), guard.describe().encode()


def _cost_file(folder: Path) -> Path:
    return tiny_cost().write(folder / "x.safetensors")


def _cost(folder: Path) -> Any:
    model = read_cost_model(folder / "c.safetensors", {IMAGE_ENCODER.kind: IMAGE_ENCODER})
    return float(model.costs(torch.ones(1, 3, 8, 8))), model.id().encode()


def _prompts(name: str, seed: str) -> Reader:
    return Reader(name, lambda folder: load_prompt_set(folder / name, category="hate"), nothing, seed.encode)


def _picture(folder: Path) -> Any:
    image_facts(folder / "p.png", decode=True)
    return read_rgb(folder / "p.png")


def _expert(folder: Path) -> Any:
    return load_expert(folder / "e.safetensors")


def _with_expert(folder: Path) -> None:
    (folder / "e.safetensors").write_bytes(expert_bytes())


def _table(folder: Path) -> Any:
    return load_pairs(folder / "train.csv")


def _square(folder: Path) -> Path:
    return write_picture(folder / "x", (1, 2, 3))


READERS = {
    "expert": Reader("e.safetensors", _expert, nothing, expert_bytes),
    "PEFT configuration": Reader(
        "adapter_config.json", _expert, _with_expert, lambda: json.dumps(CONFIG).encode()
    ),
    "pairs manifest": Reader("pairs.jsonl", load_pairs, _pictures, lambda: _made(_manifest)),
    "CoProV2": Reader("train.csv", _table, _pictures, lambda: _made(_coprov2)),
    "prompts in CSV": _prompts("p.csv", "prompt,category\na skull,hate\n"),
    "prompts in JSON": _prompts("p.json", '[{"prompt": "a skull", "category": "hate"}]'),
    "prompts in JSON lines": _prompts("p.jsonl", '{"prompt": "a skull", "category": ["hate"]}\n'),
    "prompts in text": _prompts("p.txt", "hate: a skull\n"),
    "picture": Reader("p.png", _picture, nothing, lambda: _made(_square)),
    "safety cost model": Reader("c.safetensors", _cost, nothing, lambda: _made(_cost_file)),
    "prompt guard": Reader("g.safetensors", _guard, nothing, lambda: _made(_guard_file)),
    "run state": Reader("step_00000001.safetensors", load_newest, nothing, lambda: _made(_state)),
}


def raised_by_us(error: BaseException) -> bool:
    """Return whether the pack itself raised an error, on purpose: the last frame is one of its lines."""
    frame = error.__traceback__
    while frame.tb_next:
        frame = frame.tb_next
    file = Path(frame.tb_frame.f_code.co_filename)
    return isinstance(error, ValueError | FileNotFoundError) and file.is_relative_to(ROOT / "training")


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder."""
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
