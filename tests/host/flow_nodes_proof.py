"""Run the nodes on a small flow with random weights, from pairs to a merged expert, without a server.

    python flow_nodes_proof.py COMFYUI_FOLDER FAMILY CHECKPOINT MINI_CHECKPOINT PAIRS FOLDER PACK_PARENT

Prints one line of JSON. CHECKPOINT is that of SD 3, whose autoencoder serves every family; the other parts
of another family are built from the host's own classes. PACK_PARENT contains the pack under the name
`alignguard`; everything is written into FOLDER.
"""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

HOST, FAMILY, CHECKPOINT, MINI, PAIRS, FOLDER, PACK_PARENT = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path[:0] = [HOST, PACK_PARENT]

import comfy.options

comfy.options.enable_args_parsing()

import comfy.sampler_helpers
import comfy.samplers
import comfy.sd
import folder_paths
import torch
from alignguard.alignguard_nodes.apply_safety_expert import ApplySafetyExpert
from alignguard.alignguard_nodes.host import check_trainable, encode_prompt
from alignguard.alignguard_nodes.make_safety_pairs import MakeSafetyPairs
from alignguard.alignguard_nodes.merge_safety_experts import MergeSafetyExperts
from alignguard.alignguard_nodes.train_safety_dpo import TrainSafetyDPO
from alignguard.training.experts.expert import load_expert
from alignguard.training.pairs import load_pairs

from built_flow import NETWORKS, built_clip, built_model, built_vae, lacking_encoders

NUM_PAIRS, SIDE = 3, 64
LONG = "a long prompt about a skull, " * (
    3 if FAMILY == "krea2" else 30
)  # often more than CLIP reads at once


def main() -> None:
    """Run every node, as the host does, inside inference mode."""
    if missing := lacking_encoders(FAMILY):
        sys.stdout.write(json.dumps({"skipped": missing}) + "\n")
        return
    page = ModuleType("server")  # only shows progress
    page.PromptServer = SimpleNamespace(instance=SimpleNamespace(send_progress_text=lambda *_: None))
    sys.modules["server"] = page
    folder_paths.set_output_directory(str(Path(FOLDER) / "output"))
    folder_paths.set_user_directory(str(Path(FOLDER) / "user"))
    with torch.inference_mode():
        loaded = comfy.sd.load_checkpoint_guess_config(CHECKPOINT, output_vae=True, output_clip=True)
        base = dict(zip(("model", "clip", "vae"), loaded[:3], strict=True))
        if FAMILY in NETWORKS:
            base |= {"model": built_model(FAMILY), "clip": built_clip(FAMILY, MINI)}
            base["vae"] = built_vae(FAMILY) or base["vae"]
        pairs = load_pairs(Path(PAIRS), max_pairs=NUM_PAIRS)
        results = {"experts": [trained(base, pairs, objective) for objective in ("anchored", "alignguard")]}
        experts = [load_expert(Path(FOLDER) / "output" / result["file"]) for result in results["experts"]]
        results["merged"] = {
            "regmean": merged(base, experts, pairs, method="regmean"),
            "co_merge": merged(base, experts, f"shocking: {LONG}\nshocking: a skull", method="co_merge"),
        }
        results["made"] = made(base)
        results["prompt"] = prompt_in_host(base)
        results["applied"] = applied(base["model"], experts[0])
    sys.stdout.write(json.dumps(results) + "\n")


def executed(node: type, **inputs) -> tuple:
    """Execute a node and return its outputs."""
    here = type(node.__name__, (node,), {"hidden": SimpleNamespace(unique_id=None)})
    return here.execute(**inputs).args


def trained(base: dict, pairs, objective: str) -> dict[str, object]:
    """Train two steps and return the file and what the node reports."""
    inputs = {"steps": 2, "batch_size": 2, "rank": 2, "learning_rate": 1e-2, "resolution": SIDE, "bank": 2}
    outputs = executed(TrainSafetyDPO, **base, pairs=pairs, category="auto", objective=objective, **inputs)
    expert, loss_map, report, name, _ = outputs
    return {
        "file": f"loras/{name}",
        "family": expert.family,
        "metadata": dict(expert.metadata),
        "layers": len(expert.layers),
        "losses": loss_map["loss"],
        "report": report,
    }


def merged(base: dict, experts: list, calibration, **settings) -> dict[str, object]:
    """Merge two experts with calibration on the model."""
    inputs = {"resolution": SIDE, "timesteps": 2, "prompts_per_category": 1}
    slots = {f"expert_{number}": expert for number, expert in enumerate(experts, start=1)}
    expert, report = executed(
        MergeSafetyExperts, **base, **slots, calibration=calibration, **inputs, **settings
    )
    return {"family": expert.family, "layers": len(expert.layers), "report": report}


def made(base: dict) -> str:
    """Draw one pair and return the report."""
    inputs = {"prompts": "a white skull => a white kite", "category": "shocking", "folder": "made/flow"}
    _, report = executed(MakeSafetyPairs, **base, **inputs, judge="none", resolution=SIDE, steps=2)
    return report


def prompt_in_host(base: dict) -> dict[str, object]:
    """Compare what the network is given of a prompt of ours with what the host's own node gives it."""
    model, clip = base["model"], base["clip"]
    ours = encode_prompt(model, clip, "a white skull", check_trainable(model))
    own = {"cross_attn": ours.text_embeds, "pooled_output": ours.pooled, "model_conds": {}}
    scheduled = clip.encode_from_tokens_scheduled(clip.tokenize("a white skull"))
    given = comfy.samplers.encode_model_conds(
        model.model.extra_conds,
        [own, *comfy.sampler_helpers.convert_cond(scheduled)],
        torch.zeros(1, model.model.latent_format.latent_channels, 4, 4),
        model.load_device,
        "positive",
    )
    first, second = (entry["model_conds"] for entry in given)
    gaps = [
        float((first[name].cond - second[name].cond).abs().max())
        for name in first
        if torch.is_tensor(first[name].cond)
    ]
    return {"names": first.keys() == second.keys(), "difference": max(gaps)}


def applied(model, expert) -> dict[str, float]:
    """Return how much an expert changes a prediction, on the whole sampling and on its first half."""
    whole, half = (
        executed(
            ApplySafetyExpert, model=model, expert=expert, strength=1.0, start_percent=0.0, end_percent=end
        )[0]
        for end in (1.0, 0.5)
    )
    return {"whole": len(whole.patches), "half": len(half.patches), "model": len(model.patches)}


if __name__ == "__main__":
    main()
