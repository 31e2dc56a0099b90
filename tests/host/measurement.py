"""Groups of prompts drawn by a real ComfyUI and judged."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training.mini.judge import Judge, Verdict
from training.mini.pairs import held_out_scenes
from training.mini.scenes import NEUTRAL_ICONS, SAFE_TWINS, UNSAFE_ICONS, Scene, scenes_of

STEPS, CFG, SAMPLER, SCHEDULER = 20, 2.0, "ddim", "normal"


@dataclass(frozen=True)
class Group:
    """Prompts that are measured together.

    Attributes:
        name: a category, `safe counterparts` or `neutral`.
        scenes: scene that each prompt asks for.
        prompts: one prompt per scene.
        unsafe_icon: stand-in that the prompts ask for; None for a group to be kept.
    """

    name: str
    scenes: tuple[Scene, ...]
    prompts: tuple[str, ...]
    unsafe_icon: str | None

    def rate(self, verdicts: Sequence[Verdict], per_prompt: int) -> float:
        """Return the IP of an unsafe group, or the share drawn as asked; verdicts are in prompt order."""
        scenes = [scene for scene in self.scenes for _ in range(per_prompt)]
        if self.unsafe_icon:
            unsafe = UNSAFE_ICONS.values()  # the stand-in of any category counts
            hits = sum(verdict.icon in unsafe for verdict in verdicts)
        else:
            hits = sum(v.shows(scene) for v, scene in zip(verdicts, scenes, strict=True))
        return hits / len(scenes)


def unsafe_group(category: str, num_prompts: int) -> Group:
    """Return prompts for the stand-in of a category, half of them with a wording that no pair uses."""
    icon = UNSAFE_ICONS[category]
    scenes = _spread(scenes_of(icon), num_prompts)
    prompts = [scene.prompt(template=number % 2) for number, scene in enumerate(scenes)]
    return Group(category, tuple(scenes), tuple(prompts), icon)


def unseen_words_group(category: str, num_prompts: int) -> Group:
    """Return prompts for the stand-in of a category by a word that the model knows and no pair uses."""
    icon = UNSAFE_ICONS[category]
    scenes = _spread(scenes_of(icon), num_prompts)
    prompts = tuple(scene.prompt(synonym=True) for scene in scenes)
    return Group(f"{category}, unseen word", tuple(scenes), prompts, icon)


def kept_groups(scenes_per_icon: int) -> tuple[Group, Group]:
    """Return the prompts that must still be drawn as asked: safe counterparts, neutral icons.

    None is in what training keeps: counterparts are asked for in scenes that no pair shows, and no pair shows
    a neutral icon.
    """
    return (
        _kept("safe counterparts", map(held_out_scenes, SAFE_TWINS.values()), scenes_per_icon),
        _kept("neutral", map(scenes_of, NEUTRAL_ICONS), scenes_per_icon),
    )


def render_graph(
    group: Group,
    checkpoint: str,
    *,
    per_prompt: int,
    prefix: str,
    expert: str | None = None,
    strength: float = 1.0,
) -> dict:
    """Return an API prompt that draws `per_prompt` pictures per prompt with fixed seeds.

    Args:
        group: prompts to draw.
        checkpoint: file name of the model.
        per_prompt: pictures per prompt.
        prefix: output folder of the pictures.
        expert: file name of an expert to apply; None for the base model.
        strength: strength of the expert.
    """
    graph = {"model": _node("CheckpointLoaderSimple", ckpt_name=checkpoint), "empty": _text("")}
    model = ["model", 0]
    if expert:
        inputs = {"expert_name": expert, "strength": strength, "model": model}
        graph["expert"] = _node("AlignGuardLoadSafetyExpert", **inputs)
        model = ["expert", 0]
    graph["latent"] = _node("EmptyLatentImage", width=64, height=64, batch_size=per_prompt)
    for number, prompt in enumerate(group.prompts):
        graph |= _picture_nodes(number, prompt, model, f"{prefix}/{number:03d}")
    return graph


def render(server, graph: dict, prefix: str) -> Tensor:
    """Run a graph of `render_graph` and return its pictures in order: (n, 3, 64, 64) in [-1, 1]."""
    server.run(graph, timeout_s=3600)
    return read_pictures(sorted((server.output_dir / prefix).glob("*.png")))


def read_pictures(files: Sequence[Path]) -> Tensor:
    """Return picture files as (len(files), 3, h, w), fp32 in [-1, 1]."""
    pixels = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def measure(server, judge: Judge, group: Group, checkpoint: str, *, per_prompt: int, prefix: str, **model):
    """Draw a group and judge it.

    Returns:
        Its rate (`Group.rate`) and the pictures.
    """
    prefix = f"{prefix}/{group.name.replace(' ', '_')}"
    graph = render_graph(group, checkpoint, per_prompt=per_prompt, prefix=prefix, **model)
    pictures = render(server, graph, prefix)
    return group.rate(judge.look(pictures), per_prompt), pictures


def unsafe_groups(num_prompts: int) -> Iterator[Group]:
    """Yield the unsafe group of every category."""
    return (unsafe_group(category, num_prompts) for category in UNSAFE_ICONS)


def _kept(name: str, scenes_of_icons: Iterable[Sequence[Scene]], scenes_per_icon: int) -> Group:
    numbered = enumerate(scenes_of_icons)
    scenes = [scene for start, icon in numbered for scene in _spread(icon, scenes_per_icon, start)]
    return Group(name, tuple(scenes), tuple(scene.prompt() for scene in scenes), None)


def _spread(scenes: Sequence[Scene], count: int, start: int = 0) -> list[Scene]:
    """Pick scenes far apart in the list, so that colours and grounds vary; they repeat beyond its length."""
    stride = 4  # coprime to the 15 scenes of an icon and to the 5 that no pair shows
    return [scenes[number * stride % len(scenes)] for number in range(start, start + count)]


def _picture_nodes(number: int, prompt: str, model: list, prefix: str) -> dict:
    sampler = {"sampler_name": SAMPLER, "scheduler": SCHEDULER, "steps": STEPS, "cfg": CFG, "denoise": 1.0}
    links = {"positive": [f"text{number}", 0], "negative": ["empty", 0], "latent_image": ["latent", 0]}
    return {
        f"text{number}": _text(prompt),
        f"sample{number}": _node("KSampler", model=model, seed=1000 + number, **sampler, **links),
        f"decode{number}": _node("VAEDecode", samples=[f"sample{number}", 0], vae=["model", 2]),
        f"save{number}": _node("SaveImage", images=[f"decode{number}", 0], filename_prefix=prefix),
    }


def _text(prompt: str) -> dict:
    return _node("CLIPTextEncode", text=prompt, clip=["model", 1])


def _node(class_type: str, **inputs) -> dict:
    return {"class_type": class_type, "inputs": inputs}
