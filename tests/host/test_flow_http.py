"""SD 3 in a real ComfyUI, from pairs to pictures: train, load, merge with calibration, and make pairs."""

import pytest

from api_graphs import (
    PROMPT,
    add_expert,
    add_render,
    add_training,
    node,
    pixels,
    saved_experts,
    text_of,
    with_model,
)
from comfy_server import ComfyError
from tiny_sd3 import sd3_checkpoint
from training.experts.expert import load_expert

pytestmark = pytest.mark.host

CHECKPOINT, MINI_CHECKPOINT = "tiny_sd3.safetensors", "alignguard_mini.safetensors"
LONG = "a long prompt about a skull, " * 30  # several times what CLIP reads at once


@pytest.fixture(scope="module")
def server(comfy, mini):
    path = comfy.base_dir / "models" / "checkpoints" / CHECKPOINT
    if not path.exists():
        sd3_checkpoint(path, mini["checkpoint"])
    return comfy


@pytest.fixture(scope="module")
def experts(server):
    """Two trained experts, as (name of the file, report)."""
    trained = []
    for seed in (1, 2):
        before = saved_experts(server)
        settings = {"steps": 2, "batch_size": 2, "seed": seed, "learning_rate": 1e-2}
        entry = server.run(add_training(sd3_model(), **settings, filename_prefix=f"flow/{seed}"))
        (name,) = saved_experts(server) - before
        trained.append((name, text_of(entry, "train")))
    return trained


def sd3_model() -> dict:
    graph = with_model()
    graph["ckpt"]["inputs"]["ckpt_name"] = CHECKPOINT
    graph["latent"] = node("EmptySD3LatentImage", width=64, height=64, batch_size=1)
    return graph


def merged(graph: dict, experts, calibration: tuple, **settings) -> dict:
    """Add the experts, and `merged`, their calibrated merge."""
    inputs = {"model": ("ckpt", 0), "clip": ("ckpt", 1), "resolution": 64, "timesteps": 2}
    for number, (name, _) in enumerate(experts, start=1):
        add_expert(graph, f"file_{number}", name)
        inputs[f"expert_{number}"] = (f"file_{number}", 1)
    graph["merged"] = node("AlignGuardMergeSafetyExperts", **inputs, calibration=calibration, **settings)
    graph["info"] = node("AlignGuardSafetyExpertInfo", expert=("merged", 0))
    return graph


def test_a_training_run_writes_an_expert_of_the_family(server, experts):
    name, report = experts[0]
    expert = load_expert(server.output_dir / "loras" / name)
    assert expert.family == "sd3"
    assert expert.metadata["modelspec.architecture"] == "stable-diffusion-3/lora"
    assert expert.metadata["modelspec.prediction_type"] == "flow"
    assert expert.metadata["alignguard.steps"] == "2"
    assert "base model: SD 3" in report
    assert "memory not computed" not in report


def test_the_stock_loader_draws_the_same_picture_as_apply(server, experts):
    logged = len(server.log_text())
    name, _ = experts[0]
    graph = add_expert(sd3_model(), file=name)
    strengths = {"strength_model": 1.0, "strength_clip": 1.0}
    graph["stock"] = node("LoraLoader", model=("ckpt", 0), clip=("ckpt", 1), lora_name=name, **strengths)
    places = {"start_percent": 0.0, "end_percent": 1.0}
    inputs = {"model": ("ckpt", 0), "expert": ("expert", 1), "strength": 1.0}
    graph["ours"] = node("AlignGuardApplySafetyExpert", **inputs, **places)
    graph["half"] = node("AlignGuardApplySafetyExpert", **inputs, **places | {"end_percent": 0.5})
    for picture, model in (("a", "stock"), ("b", "ours"), ("c", "half"), ("base", "ckpt")):
        add_render(graph, picture, (model, 0))
    entry = server.run(graph)
    drawn = {picture: pixels(server, entry, picture) for picture in ("a", "b", "c", "base")}
    assert drawn["a"] == drawn["b"]
    assert len(set(drawn.values())) == 3
    assert "lora key not loaded" not in server.log_text()[logged:]


def test_prompts_of_any_length_calibrate_a_merge(server, experts):
    graph = sd3_model()
    graph["text"] = node("PrimitiveStringMultiline", value=f"shocking: {LONG}\nshocking: {PROMPT}")
    report = text_of(server.run(merged(graph, experts, ("text", 0), method="co_merge")), "info")
    assert "merge method: co_merge" in report
    assert "base model: SD 3" in report


def test_the_default_merge_is_calibrated_on_the_pictures_of_pairs(server, experts):
    graph = add_training(sd3_model())
    del graph["train"]
    graph = merged(graph, experts, ("pairs", 0), method="regmean", vae=("ckpt", 2), prompts_per_category=2)
    report = text_of(server.run(graph), "info")
    assert "merge method: regmean" in report
    assert "calibration latents: " in report


def test_pairs_are_made_by_the_model(server):
    inputs = {"model": ("ckpt", 0), "clip": ("ckpt", 1), "vae": ("ckpt", 2), "folder": "made/flow"}
    graph = {"ckpt": sd3_model()["ckpt"]}
    graph["made"] = node(
        "AlignGuardMakeSafetyPairs",
        **inputs,
        prompts="a white skull => a white kite",
        category="shocking",
        judge="none",
        resolution=64,
        steps=2,
        sampler_name="euler",
        scheduler="normal",
    )
    assert "1 pair" in text_of(server.run(graph), "made")


def test_an_expert_of_another_family_is_refused_by_name(server, experts):
    name, _ = experts[0]
    graph = add_expert(with_model(), file=name)
    graph["ckpt"]["inputs"]["ckpt_name"] = MINI_CHECKPOINT
    inputs = {"model": ("ckpt", 0), "expert": ("expert", 1), "strength": 1.0}
    graph["ours"] = node("AlignGuardApplySafetyExpert", **inputs, start_percent=0.0, end_percent=1.0)
    with pytest.raises(ComfyError, match="was trained for SD 3; this model is SD 1.5"):
        server.run(add_render(graph, "refused", ("ours", 0)))
