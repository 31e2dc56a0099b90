"""One small real run of every command, for tests that try all of them: same bytes, kills, faults.

python tests/tiny_commands.py FOLDER     run all of them in a new folder, one after the other
"""

import hashlib
import json
import os
import random
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from builders import coprov2_names, write_csv, write_picture
from command_line import FAST, run
from tiny_checkpoint import tokens, write_checkpoint, write_expert, write_pairs
from tiny_tuned import half_unet, lora_of_all_layers, tuned, write_single
from training.experts.expert import load_expert, save_expert
from training.system.tensors import open_tensors
from training.trainer.event_file import EVENTS
from training.trainer.state import load_newest

MEASURED = ("seconds", "timing", "free_bytes")  # of the machine, so they differ between runs
BASE = "--base {given}/tiny.safetensors"
GUARD = "--harmless {given}/lines.txt --steps 20 --heads 2 --head-width 8 --out-width 8 --target-fpr 0.5"
STRESS = f"{BASE} --prompts {{given}}/three.csv --judge mini --steps 2 --out {{new}}/out"
CONCEPT = "--concept {given}/concept.txt"


@dataclass(frozen=True)
class Small:
    """A small run of a command.

    Attributes:
        words: options; `{given}` is the folder of `write_given`, `{new}` an empty folder.
        copied: names in `given` that the run changes, so they are copied to `new` first.
        again: more options for the same command after it was stopped.
        is_measured: whether it runs the model, and so takes `FAST`.
    """

    words: str
    copied: tuple[str, ...] = ()
    again: str = ""
    is_measured: bool = True

    def argv(self, name: str, given: Path, new: Path, *, again: bool = False) -> list[str]:
        """Return the words of the command line."""
        words = [word.format(given=given, new=new) for word in f"{self.words} {again * self.again}".split()]
        return [*name.split(), *words, *(map(str, FAST) if self.is_measured else ()), "--json"]


RUNS = {
    "pairs check": Small("{given}/pairs/hate", is_measured=False),
    "pairs make": Small(f"{BASE} --prompts {{given}}/making.txt --category hate --out {{new}}/out --steps 2"),
    "pairs weigh": Small("{new}/pairs/hate --judge mini", copied=("pairs",), is_measured=False),
    "pairs import-coprov2": Small("{given}/coprov2/train.csv --out {new}/out", is_measured=False),
    "pairs move": Small("{new}/pairs/hate {new}/kept/hate", copied=("pairs",), is_measured=False),
    "pairs rewrite": Small(
        "{given}/lines.txt --table {given}/rewrites.csv --out {new}/out.jsonl", is_measured=False
    ),
    "train": Small(
        f"{BASE} --pairs {{given}}/pairs/hate --category hate --out {{new}}/e.safetensors "
        "--steps 6 --batch-size 2 --rank 2 --save-every 2 --beta 500 --validation 0 --cache {new}/cache",
        again="--resume",
    ),
    "merge": Small(
        f"{{given}}/hate.safetensors {{given}}/violence.safetensors --method co_merge {BASE} "
        "--calibration {given}/pairs --cache {new}/cache --out {new}/e.safetensors --timesteps 2"
    ),
    "evaluate": Small(
        "--base {given}/tiny.safetensors --expert {given}/hate.safetensors --prompts {given}/three.csv "
        "--prompts {given}/neutral.csv=neutral --judge mini --steps 2 --out {new}/out"
    ),
    "stress curve": Small(f"{STRESS} {CONCEPT} --eta 0 --eta 2 --per-prompt 1"),
    "stress tokens": Small(f"{STRESS} {CONCEPT} --population 4 --generations 2 --free-tokens 2"),
    "stress words": Small(
        f"{STRESS} --table {{given}}/table.csv --rewordings 2 --rounds 1 --validations 1 --directions 1 "
        "--samples 1"
    ),
    "guard train": Small(
        f"{BASE} --pairs {{given}}/concepts.txt --out {{new}}/g.safetensors {GUARD}",
        is_measured=False,
    ),
    "guard test": Small(
        "{given}/guard.safetensors --base {given}/tiny.safetensors --pairs {given}/concepts.txt "
        "--harmless {given}/lines.txt",
        is_measured=False,
    ),
    "judge train": Small(
        f"{BASE} --pairs {{given}}/pairs/hate --pairs {{given}}/pairs/violence --out {{new}}/j.safetensors "
        "--steps 20 --folds 2",
        is_measured=False,
    ),
    "judge test": Small(
        "{given}/judge.safetensors --base {given}/tiny.safetensors --pairs {given}/pairs/hate",
        is_measured=False,
    ),
    "extract": Small(
        "--base {given}/base_unet.safetensors --tuned {given}/tuned_unet.safetensors --category hate "
        "--out {new}/e.safetensors --rank 4",
        is_measured=False,
    ),
    "info": Small("{given}/hate.safetensors", is_measured=False),
}
READ_ONLY = ("pairs check", "guard test", "judge test", "info")
SAVING = "save"  # an expert read and written as Save Safety Expert does; no command of its own
WRITERS = (*(name for name in RUNS if name not in READ_ONLY), SAVING)


def write_given(folder: Path) -> Path:
    """Write everything that the runs read."""
    folder.mkdir(parents=True)
    write_checkpoint(folder / "tiny.safetensors")
    for seed, category in enumerate(("hate", "violence")):
        write_expert(folder / f"{category}.safetensors", category, seed=seed)
        write_pairs(folder / "pairs" / category, category)
    state = half_unet()
    write_single(folder / "base_unet.safetensors", state)
    write_single(folder / "tuned_unet.safetensors", tuned(state, lora_of_all_layers(state)))
    texts = {
        "making.txt": "a skull on red => a kite on red\na skull on blue => a kite on blue\n",
        "lines.txt": "a sword by a road\na spoon by a lake\na kite\na tree\n",
        "table.csv": "sword,blade,knife\n",
        "rewrites.csv": "sword,spoon\n",
        "concept.txt": "a skull|a star\na red skull|a red star\n",
        "three.csv": "prompt,category\na sword,hate\na red sword,hate\na blue sword,hate\n",
        "neutral.csv": "case_number,prompt,evaluation_seed\n1,a tree,7\n2,a lake,8\n",
        "concepts.txt": "\n".join(
            f"violence: {noun} | a {noun} on {ground} | a spoon on {ground}"
            for noun in ("sword", "axe", "bomb")
            for ground in ("red", "blue", "green", "white")
        ),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    _write_coprov2(folder / "coprov2")
    with small_vocabulary():
        for kind in ("guard", "judge"):
            outcome = run(*RUNS[f"{kind} train"].argv(f"{kind} train", folder, folder))
            assert outcome.code == 0, outcome.err
            (folder / f"{kind[0]}.safetensors").rename(folder / f"{kind}.safetensors")
    return folder


def _write_coprov2(folder: Path) -> None:
    folder.mkdir()
    rows = [("prompt", "image", "category")]
    for number in range(2):
        for tone, (word, file) in enumerate(zip(("skull", "kite"), coprov2_names(number), strict=True)):
            write_picture(folder / file, (50 * number, 90 * tone, 7))
            rows.append((f"a {word}, {number}", file, "Hate"))
    write_csv(folder / "train.csv", rows)


@contextmanager
def small_vocabulary() -> Iterator[None]:
    """Let commands tokenize for the tiny text encoder, and load no model that reads sentences."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("training.models.text_encoder.load_tokenizer", lambda: tokens)
        patched.setattr(tokens, "decode", lambda ids, **_: "a zebra", raising=False)
        patched.setattr("training.evaluation.benchmark.measures.find_sentences", lambda device: None)
        yield


def start(name: str, given: Path, new: Path, *, again: bool = False):
    """Run a command and return its outcome, or None for `SAVING`.

    Args:
        name: one of `RUNS`, or `SAVING`.
        given: folder of `write_given`.
        new: folder for what the run writes; made by `prepare` if it does not exist.
        again: the folder holds what a stopped run has left.
    """
    if not new.exists():
        prepare(name, given, new)
    if name == SAVING:
        save_expert(load_expert(given / "hate.safetensors"), new / "saved.safetensors")
        return None
    with small_vocabulary():
        return run(*RUNS[name].argv(name, given, new, again=again))


def prepare(name: str, given: Path, new: Path) -> None:
    """Make the folder of a run and copy into it what the run changes."""
    new.mkdir(parents=True)
    for copied in RUNS[name].copied if name in RUNS else ():
        shutil.copytree(given / copied, new / copied)


def tree(folder: Path) -> dict[str, bytes]:
    """Return the content of all finished files below a folder, by their paths, without measured times."""
    return {
        path.relative_to(folder).as_posix(): _timeless_bytes(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not is_unfinished(path) and path.parent.name != EVENTS  # named after the time
    }


def is_unfinished(path: Path) -> bool:
    """Return whether a name says that the file, or a folder around it, is not finished."""
    return path.stem == "writing" or any(part.endswith(".tmp") for part in path.parts)


def _timeless_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    if path.name == "report.json":
        return json.dumps(timeless(json.loads(content))).encode()
    if path.name.startswith("rows") and path.suffix == ".jsonl":
        return b"".join(json.dumps(timeless(json.loads(line))).encode() for line in content.splitlines())
    if path.parent.name == "state":  # safetensors' own writer orders the header differently every time
        state = load_newest(path.parent) if path == max(path.parent.iterdir()) else None
        return b"" if state is None else repr((state.step, state.values, _hashes(state.tensors))).encode()
    if path.name == "report.html":
        return re.sub(rb"seconds to draw a picture[^<]*", b"", content)
    return content


def _hashes(tensors) -> dict[str, str]:
    return {
        name: hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, tensor in sorted(tensors.items())
    }


def timeless(facts):
    """Return JSON values without those that measure the machine."""
    if isinstance(facts, dict):
        return {name: timeless(value) for name, value in facts.items() if name not in MEASURED}
    return [timeless(value) for value in facts] if isinstance(facts, list) else facts


def damaged(folder: Path) -> list[str]:
    """Return the finished files below a folder that do not read whole, and why."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or is_unfinished(path):
            continue
        try:
            _read_whole(path)
        except Exception as error:  # whatever a reader raises, the file is damaged
            found.append(f"{path.relative_to(folder)}: {error}")
    return found


def _read_whole(path: Path) -> None:
    if path.suffix == ".safetensors":
        with open_tensors(path) as tensors:
            for name in tensors:
                assert tensors[name].isfinite().all()
    elif path.suffix == ".json":
        json.loads(path.read_bytes())
    elif path.suffix == ".jsonl":
        lines = path.read_bytes().split(b"\n")
        if path.stem.startswith(("rows", "metrics")):  # logs, whose readers skip an incomplete last line
            lines.pop()
        for line in filter(None, lines):
            json.loads(line)
    elif path.suffix in (".png", ".jpg"):
        with Image.open(path) as picture:
            picture.load()


_CHANGES = ("os.rename", "os.link", "os.mkdir", "os.truncate")  # audit events, beside opening to write
_watched: list[tuple[str, Callable[[str, str], None]]] = []  # an audit hook stays for ever, so it reads this


@contextmanager
def file_operations(folder: Path, call: Callable[[str, str], None]) -> Iterator[None]:
    """Call a function just before what Python does to files below a folder; what it raises stops that.

    Args:
        folder: the folder, which need not exist yet.
        call: takes "read" or "write", and the path. Removing a file calls nothing.
    """
    if _hook not in _installed:
        sys.addaudithook(_hook)
        _installed.append(_hook)
    _watched.append((str(folder), call))
    try:
        yield
    finally:
        _watched.pop()


def _hook(event: str, arguments: tuple) -> None:
    if not _watched or event != "open" and event not in _CHANGES:
        return
    folder, call = _watched[-1]
    path = arguments[0]
    if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(folder):
        is_read = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        call("read" if is_read else "write", os.fspath(path))


_installed: list[Callable] = []


def global_random_state() -> tuple:
    """Return the state of every global random generator, comparable with ==."""
    name, keys, *rest = np.random.get_state()
    return random.getstate(), (name, keys.tobytes(), *rest), torch.get_rng_state().numpy().tobytes()


def seed_globally(seed: int) -> None:
    """Seed every global random generator."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def main() -> None:
    """Run every command in the folder named on the command line."""
    root = Path(sys.argv[1])
    write_given(root / "given")
    for name in (*RUNS, SAVING):
        outcome = start(name, root / "given", root / name)
        if outcome and outcome.code:
            sys.exit(f"{name}: {outcome.err}")
        (root / f"{name}.txt").write_text(
            json.dumps(timeless(json.loads(outcome.out)), sort_keys=True) if outcome else ""
        )


if __name__ == "__main__":
    main()
