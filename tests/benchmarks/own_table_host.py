"""Every row of `own_table.py` through a real ComfyUI, fewer pictures each: do both say the same?

The same prompts with the same noise are drawn in the server and outside it, on the wide and the narrow UNet.
It proves the machinery, not a claim about Stable Diffusion.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import own_table
from baselines.sld import PUBLISHED
from candidates import UNSAFE_TEXT, Candidate, as_change, candidates
from columns import ETA, Column, Drawer, concept_pairs, counted, users
from kept_trials import run_kept
from mini_lab import FOLDER, MiniLab, code_hash
from style_lora import share, train_style
from tqdm import tqdm

from base_folder import link_folder, place_mini
from comfy_server import ComfyServer
from measurement import Group, kept_groups, render, render_graph, unsafe_group, unseen_words_group
from training.config import MergeConfig
from training.expert import SafetyExpert, save_expert
from training.mini.build import CHECKPOINT, build_mini, version
from training.mini.expand import expand_layers, expand_unet
from training.mini.native_names import native_unet
from training.taxonomy import CATEGORIES
from training.tensor_file import write_tensors

FIRST = ("UCE", "SLD max", "ESD-u", MergeConfig().method, "co_merge", "all-in-one", "base")
LAST = "single experts"  # seven models draw what is to be kept
PROMPTS = 1  # of every category and kind of wording: a picture takes seconds
STYLE = "bench_style.safetensors"
UNSAFE = {name: unsafe_group(name, PROMPTS) for name in CATEGORIES}
COLUMNS = {
    "IP": Column(UNSAFE),
    "IP, unseen words": Column({name: unseen_words_group(name, PROMPTS) for name in CATEGORIES}),
    "IP, stress": Column(UNSAFE, eta=ETA),
    "IP, after a style LoRA": Column(UNSAFE, styled=True),
    "kept": Column({group.name: group for group in kept_groups(1)}),
}
NODE = Path(__file__).with_name("sld_node")
FILES = (*own_table.FILES, Path(__file__), NODE / "__init__.py")

Seen = Mapping[str, Mapping[str, Sequence[bool]]]  # column -> group -> whether each picture counts


def measure() -> dict:
    """Draw the same prompts in the server and outside it; a killed run goes on where it was.

    Returns:
        Row -> by column the share that counts, by both ways of drawing; how many pictures they agree on.
    """
    lab = MiniLab()
    style = train_style(lab.unet, lab)
    drawer = Drawer(lab, as_change(style, lab.unet))
    rows = list(candidates(lab))
    others = sorted((row for row in rows if row not in FIRST), key=lambda row: row == LAST)
    calls = [(row,) for row in (*FIRST, *others)]
    file = FOLDER / f"mini-{version()}" / "trials" / f"own_table_host-{code_hash(*FILES)[:16]}.jsonl"
    found = {}
    with tempfile.TemporaryDirectory(prefix="alignguard_bench_") as folder, _server(Path(folder)) as server:
        layers = expand_layers(style)
        save_expert(SafetyExpert(layers, ("style",), "sd15", {}, STYLE), server.models_dir / "loras" / STYLE)
        trials = run_kept(lambda row: _trial(server, drawer, row), calls, file, here=True)
        for (row,), seen in tqdm(trials, total=len(calls), desc="rows", file=sys.stdout):
            found[row] = figures(seen["server"], seen["outside"])
            tqdm.write(f"{row}: {found[row]}")
    return {row: found[row] for row in rows}


def figures(inside: Seen, outside: Seen) -> dict[str, str]:
    """Return a row's shares in the server and outside it, and of how many pictures both say the same."""
    row = {}
    for column in inside:
        for where, seen in (("server", inside), ("outside", outside)):
            pictures = _flat({column: seen[column]})
            row[f"{column}, {where}"] = share(sum(pictures), len(pictures))
    pairs = list(zip(_flat(inside), _flat(outside), strict=True))
    return row | {"same": share(sum(one == other for one, other in pairs), len(pairs))}


def _flat(seen: Seen) -> list[bool]:
    return [picture for groups in seen.values() for pictures in groups.values() for picture in pictures]


def _server(base: Path) -> ComfyServer:
    (base / "custom_nodes").mkdir()
    link_folder(NODE, base / "custom_nodes" / NODE.name)
    server = ComfyServer(base, extra=("--disable-metadata",))
    place_mini(base, build_mini(FOLDER / f"mini-{version()}", categories=()))
    return server


def _trial(server: ComfyServer, drawer: Drawer, row: str) -> dict[str, Seen]:
    """Make a candidate; return what both ways of drawing show."""
    lab = drawer.lab
    candidate = candidates(lab)[row]()
    placed = {user: _place(server, lab, row, user, candidate) for user in candidate.changes or [""]}
    seen: dict[str, dict] = {"server": {}, "outside": {}}
    for name, column in COLUMNS.items():
        for key, group in column.groups.items():
            used = {f"{row}_{user}": placed.get(user, placed.get("")) for user in users(candidate, key)}
            inside = []
            for at, model in used.items():
                inside += _draw(server, lab, f"{at}/{name}", group, model | _conditions(column, key))
            outside = counted(group, drawer.look(candidate, column, key))
            seen["server"].setdefault(name, {})[key] = inside
            seen["outside"].setdefault(name, {})[key] = outside
    return seen


def _conditions(column: Column, category: str) -> dict:
    """Return what the graph must name for a column beside the candidate."""
    style = {"lora": STYLE} if column.styled else {}
    return style | ({"concept": (f"concept {category}", column.eta)} if column.eta else {})


def _concepts() -> dict:
    """Return a Concept Vector node of each category; all are in every graph, so that the host keeps them."""
    texts = {
        name: "\n".join(f"{pair.having} | {pair.lacking}" for pair in concept_pairs(name))
        for name in CATEGORIES
    }
    return {
        f"concept {name}": {
            "class_type": "AlignGuardConceptVector",
            "inputs": {"clip": ["model", 1], "prompts": text},
        }
        for name, text in texts.items()
    }


def _draw(server: ComfyServer, lab: MiniLab, name: str, group: Group, model: Mapping) -> list[bool]:
    """Draw a group in the server; return whether each picture counts."""
    prefix = f"bench_{_slug(name)}/{_slug(group.name)}"
    graph = render_graph(group, CHECKPOINT, per_prompt=1, prefix=prefix, **model) | _concepts()
    verdicts = lab.judge.look(render(server, graph, prefix))
    return counted(group, list(zip(verdicts, group.scenes, strict=True)))


def _slug(name: str) -> str:
    return name.replace(" ", "_").replace(",", "")


def _place(server: ComfyServer, lab: MiniLab, row: str, user: str, candidate: Candidate) -> dict:
    """Put a candidate where the server finds it; return what the graph must name."""
    name = _slug(f"{row}_{user}")
    if candidate.guidance:
        preset = next(key for key, config in PUBLISHED.items() if config == candidate.guidance)
        inputs = {"clip": ["model", 1], "unsafe": UNSAFE_TEXT, "preset": preset}
        return {"patch": ("BenchSafeLatentDiffusion", inputs)}
    if candidate.layers:
        file = server.models_dir / "safety_experts" / f"bench_{name}.safetensors"
        save_expert(SafetyExpert(expand_layers(candidate.layers[user]), CATEGORIES, "sd15", {}, name), file)
        return {"expert": file.name}
    if not candidate.changes:
        return {}
    state = dict(lab.unet.state_dict())
    for parameter, delta in candidate.changes[user].items():
        state[parameter] = state[parameter] + delta
    file = server.models_dir / "diffusion_models" / f"bench_{name}.safetensors"
    wide = {name: tensor.half() for name, tensor in native_unet(expand_unet(state)).items()}
    write_tensors(file, {f"model.diffusion_model.{name}": tensor for name, tensor in wide.items()}, {})
    return {"unet": file.name}
