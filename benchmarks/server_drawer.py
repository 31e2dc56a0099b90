"""Draw and judge prompts with a candidate in a real ComfyUI, as `columns.Drawer` does outside it.

A group is one batch in which every prompt has its own seed, so both start from the same noise.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from api_graphs import node
from base_folder import link_folder, place_mini
from baselines.sld import PUBLISHED
from candidates import Candidate
from columns import COLUMNS, EVERY, FIRST_SEED, Column, users
from comfy_server import ComfyServer
from measurement import CFG, SAMPLER, SCHEDULER, STEPS, Group, read_pictures
from mini_lab import FOLDER, MiniLab
from training.experts.expert import SafetyExpert, save_expert
from training.experts.low_rank import LowRank
from training.mini.build import CHECKPOINT, build_mini, version
from training.mini.expand import expand_layers, expand_unet, native_unet
from training.mini.judge import Verdict
from training.mini.scenes import SIZE, Scene
from training.rules.categories import CATEGORIES
from training.system.tensors import write_tensors

NODES = Path(__file__).with_name("host_nodes")
STYLE = "bench_style.safetensors"

Graph = dict[str, dict]


@contextmanager
def bench_server() -> Iterator[ComfyServer]:
    """Run a ComfyUI with the mini model and the nodes of the benchmark."""
    with tempfile.TemporaryDirectory(prefix="alignguard_bench_") as folder:
        base = Path(folder)
        (base / "custom_nodes").mkdir()
        link_folder(NODES, base / "custom_nodes" / NODES.name)
        server = ComfyServer(base, extra=("--disable-metadata",))
        place_mini(base, build_mini(FOLDER / f"mini-{version()}", categories=()))
        with server:
            yield server


class ServerDrawer:
    """Draws and judges prompts with a candidate on the wide UNet of a server.

    Args:
        server: server started by `bench_server`.
        lab: provides the narrow UNet and the judge.
        style: LoRA of the style column.
    """

    def __init__(self, server: ComfyServer, lab: MiniLab, style: Mapping[str, LowRank]) -> None:
        """Save the style LoRA in the server's models folder."""
        self._server, self._lab = server, lab
        expert = SafetyExpert(expand_layers(style), ("style",), "sd15", {}, STYLE)
        save_expert(expert, server.models_dir / "loras" / STYLE)
        self._placed: dict[tuple[str, str], Graph] = {}

    def look(
        self, row: str, candidate: Candidate, column: Column, name: str, part: slice = EVERY
    ) -> list[tuple[Verdict, Scene]]:
        """Draw prompts of a group; return what each picture shows and the scene its prompt asks for.

        Args:
            row: name of the candidate, used in its file names.
            candidate: model to draw with.
            column: the way to draw.
            name: name of the group.
            part: prompts of the group to draw.
        """
        group, verdicts = column.groups[name], []
        for user in users(candidate, name):
            model_nodes = self._place(row, user if user in candidate.changes else "", candidate)
            prefix = _slug(f"bench_{row}/{list(COLUMNS.values()).index(column)}_{name}_{user}")
            self._server.run(column_graph(model_nodes, column, name, part, prefix), timeout_s=3600)
            pictures = read_pictures(sorted((self._server.output_dir / prefix).glob("*.png")))
            verdicts += zip(self._lab.judge.look(pictures), group.scenes[part], strict=True)
        return verdicts

    def _place(self, row: str, user: str, candidate: Candidate) -> Graph:
        """Save a candidate for the server, once, and return the nodes that make its MODEL."""
        if (row, user) not in self._placed:
            self._placed[row, user] = self._model(_slug(f"bench_{row}_{user}"), user, candidate)
        return self._placed[row, user]

    def _model(self, name: str, user: str, candidate: Candidate) -> Graph:
        models, file = self._server.models_dir, f"{name}.safetensors"
        if candidate.guidance:
            preset = next(key for key, config in PUBLISHED.items() if config == candidate.guidance)
            inputs = {"clip": ("base", 1), "unsafe": self._lab.unsafe_text, "preset": preset}
            return {"candidate": node("BenchSafeLatentDiffusion", model=("base", 0), **inputs)}
        if candidate.layers:
            expert = SafetyExpert(expand_layers(candidate.layers[user]), CATEGORIES, "sd15", {}, name)
            save_expert(expert, models / "safety_experts" / file)
            inputs = {"expert_name": file, "strength": 1.0, "model": ("base", 0)}
            return {"candidate": node("AlignGuardLoadSafetyExpert", **inputs)}
        if not candidate.changes:
            return {}
        state = dict(self._lab.unet.state_dict())
        for parameter, delta in candidate.changes[user].items():
            state[parameter] = state[parameter] + delta
        wide = native_unet(expand_unet(state))
        tensors = {f"model.diffusion_model.{key}": tensor.half() for key, tensor in wide.items()}
        write_tensors(models / "diffusion_models" / file, tensors, {})
        return {"candidate": node("UNETLoader", unet_name=file, weight_dtype="default")}


def column_graph(model_nodes: Graph, column: Column, name: str, part: slice, prefix: str) -> Graph:
    """Return an API prompt that draws a part of a group in one batch."""
    group = column.groups[name]
    numbers = range(len(group.prompts))[part]
    graph = {"base": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)} | _texts(part) | _concepts()
    graph |= model_nodes
    model, text = ("candidate", 0) if model_nodes else ("base", 0), (_text(group), 0)
    if column.styled:
        style = {"lora_name": STYLE, "strength_model": 1.0, "model": model}
        graph["style"], model = node("LoraLoaderModelOnly", **style), ("style", 0)
    if column.eta:
        pushed = {"conditioning": text, "concept": (f"concept {name}", 0), "eta": column.eta}
        graph["pushed"], text = node("AlignGuardConceptStress", **pushed), ("pushed", 0)
    sampling = {"noise": ("noise", 0), "guider": ("guider", 0), "sampler": ("sampler", 0)}
    return graph | {
        "noise": node("BenchNoise", seeds=" ".join(str(FIRST_SEED + number) for number in numbers)),
        "guider": node("CFGGuider", model=model, positive=text, negative=("empty", 0), cfg=CFG),
        "sampler": node("KSamplerSelect", sampler_name=SAMPLER),
        "sigmas": node("BasicScheduler", model=model, scheduler=SCHEDULER, steps=STEPS, denoise=1.0),
        "latent": node("EmptyLatentImage", width=SIZE, height=SIZE, batch_size=len(numbers)),
        "sample": node("SamplerCustomAdvanced", latent_image=("latent", 0), sigmas=("sigmas", 0), **sampling),
        "decode": node("VAEDecode", samples=("sample", 0), vae=("base", 2)),
        "save": node("SaveImage", images=("decode", 0), filename_prefix=f"{prefix}/picture"),
    }


def _texts(part: slice) -> Graph:
    """Return the encoded prompts of all groups; every graph holds all of them, so the host caches them."""
    groups = {_text(group): group for column in COLUMNS.values() for group in column.groups.values()}
    empty = {"empty": node("CLIPTextEncode", text="", clip=("base", 1))}
    return empty | {
        key: node("BenchPrompts", clip=("base", 1), prompts="\n".join(group.prompts[part]))
        for key, group in groups.items()
    }


def _text(group: Group) -> str:
    return f"prompts {group.name}"


def _concepts() -> Graph:
    """Return a Concept Vector node per category; every graph holds all of them, so the host caches them."""
    texts = {
        name: "\n".join(" | ".join(prompts) for prompts in MiniLab.prompt_pairs(name)) for name in CATEGORIES
    }
    return {
        f"concept {name}": node("AlignGuardConceptVector", clip=("base", 1), prompts=text)
        for name, text in texts.items()
    }


def _slug(name: str) -> str:
    return name.replace(" ", "_").replace(",", "")
