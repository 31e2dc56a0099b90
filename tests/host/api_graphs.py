"""Small API prompts for the mini model, built from parts."""

import json
from pathlib import Path

from PIL import Image

from training.mini.build import CHECKPOINT

API = Path(__file__).resolve().parents[2] / "workflows" / "api"
SHOCKING, HATE = "alignguard_mini_shocking.safetensors", "alignguard_mini_hate.safetensors"
PAIRS = "alignguard_pairs/shocking"
PROMPT = "a white skull on a black ground"
SHORT = {  # settings with which the shipped graphs run quickly
    "AlignGuardTrainSafetyDPO": {"steps": 1, "batch_size": 1},
    "AlignGuardTrainSafetyCost": {"steps": 1, "folds": 2},
    "AlignGuardTrainPromptInterpreter": {"steps": 1},
    "AlignGuardLoadSafetyPairs": {"max_pairs": 2},
    "AlignGuardRewritePrompts": {"prompts": PROMPT},
    "AlignGuardMakeSafetyPairs": {"judge": "none", "steps": 2},
    "AlignGuardMergeSafetyExperts": {"timesteps": 1},
    "KSampler": {"steps": 2},
    "EmptyLatentImage": {"batch_size": 1},
    "AlignGuardErasureDepth": {"timesteps": 2, "noises": 1},
}


def node(class_type: str, **inputs) -> dict:
    """Return a node of an API prompt; a link is ("node", slot)."""
    return {
        "class_type": class_type,
        "inputs": {k: list(v) if isinstance(v, tuple) else v for k, v in inputs.items()},
    }


def with_model() -> dict:
    """Return the first nodes of every prompt: the checkpoint, and a sampler's other inputs."""
    return {
        "ckpt": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
        "pos": node("CLIPTextEncode", text=PROMPT, clip=("ckpt", 1)),
        "neg": node("CLIPTextEncode", text="", clip=("ckpt", 1)),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
    }


def add_render(graph: dict, name: str, model: tuple, latent: tuple = ("latent", 0)) -> dict:
    """Add sampler, decoder and SaveImage `<name>` for a model, with the same seed for every picture."""
    sampler = {
        "seed": 7,
        "steps": 4,
        "cfg": 3.0,
        "sampler_name": "ddim",
        "scheduler": "normal",
        "denoise": 1.0,
    }
    inputs = {"model": model, "positive": ("pos", 0), "negative": ("neg", 0), "latent_image": latent}
    graph[f"sample_{name}"] = node("KSampler", **sampler, **inputs)
    graph[f"decode_{name}"] = node("VAEDecode", samples=(f"sample_{name}", 0), vae=("ckpt", 2))
    graph[name] = node("SaveImage", images=(f"decode_{name}", 0), filename_prefix=f"tests/{name}")
    return graph


def add_expert(graph: dict, name: str = "expert", file: str = SHOCKING) -> dict:
    """Add a loader for an expert file, without a model."""
    graph[name] = node("AlignGuardLoadSafetyExpert", expert_name=file, strength=1.0)
    return graph


def add_training(graph: dict, *, folder: str = PAIRS, max_pairs: int = 2, **settings) -> dict:
    """Add pairs and a training run `train`; by default one step with one pair."""
    settings = {"steps": 1, "batch_size": 1, "resolution": 64, "category": "auto", **settings}
    graph["pairs"] = node("AlignGuardLoadSafetyPairs", folder=folder, category="all", max_pairs=max_pairs)
    inputs = {"model": ("ckpt", 0), "clip": ("ckpt", 1), "vae": ("ckpt", 2), "pairs": ("pairs", 0)}
    graph["train"] = node("AlignGuardTrainSafetyDPO", **inputs, **settings)
    return graph


def shipped_prompt(name: str, **train_settings) -> dict:
    """Return a shipped API prompt with few steps, few pairs and small batches, so that it runs quickly."""
    graph = json.loads((API / f"{name}.json").read_text(encoding="utf-8"))
    for entry in graph.values():
        entry["inputs"] |= SHORT.get(entry["class_type"], {})
        if entry["class_type"] == "AlignGuardTrainSafetyDPO":
            entry["inputs"] |= train_settings
    return graph


def text_of(entry: dict, name: str) -> str:
    """Return the text that a node shows."""
    return "\n".join(entry["outputs"][name]["text"])


def pixels(server, entry: dict, name: str) -> bytes:
    """Return the pixels of the only picture that a node saved."""
    (picture,) = all_pixels(server, entry, name)
    return picture


def all_pixels(server, entry: dict, name: str) -> list[bytes]:
    """Return the pixels of every picture that a node saved."""
    found = []
    for file in entry["outputs"][name]["images"]:
        with Image.open(server.base_dir / file["type"] / file["subfolder"] / file["filename"]) as picture:
            found.append(picture.convert("RGB").tobytes())
    return found


def saved_experts(server) -> set[str]:
    """Return the names of all files under output/loras."""
    folder = server.output_dir / "loras"
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
