"""Training in a real ComfyUI: the files it writes, the state it leaves alone, and how it stops."""

import io
import json
import re

import pytest
from PIL import Image

from api_graphs import (
    SHOCKING,
    add_expert,
    add_render,
    add_training,
    node,
    pixels,
    saved_experts,
    text_of,
    with_model,
)
from base_folder import place_mini
from comfy_server import ComfyError, ComfyServer, wait_for
from training.experts.expert import load_expert
from websocket import watched_run

pytestmark = pytest.mark.host

SLOW_RESOLUTION = 768  # a picture takes almost a second, so the cancel arrives during encoding
CANCEL_LIMIT_S = 60  # a step of the mini model takes a second; the rest is for a slow machine


def loras(server):
    return server.output_dir / "loras"


def train(server, **settings) -> tuple[dict, str]:
    """Train and return the history entry and the name of the new file."""
    before = saved_experts(server)
    entry = server.run(add_training(with_model(), **settings))
    (new,) = saved_experts(server) - before
    return entry, new


def test_the_file_records_how_it_was_made_and_the_report_says_where_it_is(comfy):
    entry, new = train(comfy, steps=2, seed=3, filename_prefix="mine/first")
    expert = load_expert(loras(comfy) / new)
    assert new == "alignguard/mine/first_00001_.safetensors"
    assert expert.categories == ("shocking",)
    assert expert.family == "sd15"
    assert {key: expert.metadata[f"alignguard.{key}"] for key in ("steps", "seed", "objective")} == {
        "steps": "2",
        "seed": "3",
        "objective": "anchored",
    }
    assert f"saved as loras/{new}" in text_of(entry, "train")


def test_equal_settings_give_equal_experts_and_two_files(comfy):
    (_, first), (_, second) = (train(comfy, seed=5, filename_prefix=name) for name in ("twin_a", "twin_b"))
    experts = [load_expert(loras(comfy) / name) for name in (first, second)]
    assert experts[0].content_hash == experts[1].content_hash
    _, third = train(comfy, seed=6, filename_prefix="twin_a")
    assert third == "alignguard/twin_a_00002_.safetensors"


def test_held_out_pairs_are_measured_and_can_stop_a_run(comfy):
    entry, new = train(
        comfy,
        steps=8,
        batch_size=2,
        max_pairs=8,
        learning_rate=0.3,  # far too high, so that the margin soon stops growing
        validation=0.25,
        validate_every=1,
        patience=1,
        bank=2,
        filename_prefix="held_out",
    )
    metadata = load_expert(loras(comfy) / new).metadata
    figures = json.loads(metadata["alignguard.validation"])
    assert str(figures["step"]) == metadata["alignguard.steps"]
    assert int(metadata["alignguard.steps"]) < 8
    assert f"held-out pairs: margin {figures['margin']:.4g}, " in text_of(entry, "train")


def test_an_unchanged_graph_is_not_trained_again(comfy):
    graph = add_training(with_model(), steps=2, seed=21, filename_prefix="once")
    comfy.run(graph)
    before = saved_experts(comfy)
    comfy.run(graph)
    assert saved_experts(comfy) == before


def test_a_run_whose_output_the_host_has_dropped_is_not_trained_again(comfy):
    settings = {"steps": 2, "seed": 23, "filename_prefix": "dropped"}
    _, first = train(comfy, **settings)
    before = saved_experts(comfy)
    entry = comfy.run(add_training(with_model(), **settings, resume=True))  # not in the host's cache
    assert saved_experts(comfy) == before
    text = text_of(entry, "train")
    assert text.startswith("Nothing was trained: an earlier run had equal inputs")
    assert f"saved as loras/{first}" in text
    assert len(entry["outputs"]["train"]["images"]) == 1  # the loss curve of that run


def test_a_preset_overrides_the_widgets_and_the_report_lists_its_values(comfy):
    entry, new = train(comfy, steps=3, batch_size=2, preset="quick", seed=22, filename_prefix="preset")
    metadata = load_expert(loras(comfy) / new).metadata
    assert (metadata["alignguard.steps"], metadata["alignguard.batch_size"]) == ("60", "4")
    text = text_of(entry, "train")
    assert "preset quick: steps 60, batch_size 4, grad_accumulation 1" in text
    assert "60 steps in " in text
    assert "plan: 4 pairs at once, checkpointing none; " in text
    assert " of weights included; about " in text


def test_a_host_that_holds_the_model_in_fp16_trains_the_same_fp32_expert(comfy, mini, tmp_path):
    halved = ComfyServer(tmp_path, extra=("--fp16-unet",))
    place_mini(tmp_path, mini)
    _, in_fp32 = train(comfy, steps=2, seed=5, precision="fp32", filename_prefix="whole")
    with halved:
        _, in_fp16 = train(halved, steps=2, seed=5, precision="fp32", filename_prefix="whole")
        assert "dtype torch.float16" in halved.log_text()
        twin = load_expert(loras(halved) / in_fp16)
    expert = load_expert(loras(comfy) / in_fp32)
    assert twin.metadata["alignguard.base_hash"] == expert.metadata["alignguard.base_hash"]
    assert twin.content_hash == expert.content_hash


def test_a_resumed_run_continues_from_the_saved_state_to_the_same_expert(comfy):
    same = {"seed": 17, "lr_schedule": "constant"}
    _, whole = train(comfy, steps=4, **same, filename_prefix="parts/whole")
    train(comfy, steps=2, **same, filename_prefix="parts/resumed")
    runs = comfy.base_dir / "user" / "__alignguard" / "runs"
    _, resumed = train(comfy, steps=4, **same, resume=True, filename_prefix="parts/resumed")
    experts = [load_expert(loras(comfy) / name) for name in (whole, resumed)]
    assert experts[0].content_hash == experts[1].content_hash
    run = runs / "parts%2Fresumed"
    names = {file.name for file in run.iterdir()} - {"tensorboard"}  # present if it is installed
    assert names == {"expert.safetensors", "finished", "in_use.lock", "metrics.jsonl", "state"}  # not renamed
    assert len((runs / "parts%2Fwhole" / "metrics.jsonl").read_text().splitlines()) == 4
    with pytest.raises(ComfyError, match="cannot be resumed: seed was 17 and is 18"):
        train(comfy, steps=6, **same | {"seed": 18}, resume=True, filename_prefix="parts/resumed")


def test_the_stock_lora_loader_matches_every_key_and_draws_the_same_picture(comfy):
    _, new = train(comfy, steps=3, learning_rate=0.01, filename_prefix="stock")
    logged = len(comfy.log_text())
    graph = add_expert(with_model(), file=new)
    strengths = {"strength_model": 1.0, "strength_clip": 1.0}
    graph["stock"] = node("LoraLoader", model=("ckpt", 0), clip=("ckpt", 1), lora_name=new, **strengths)
    graph["ours"] = node(
        "AlignGuardApplySafetyExpert",
        model=("ckpt", 0),
        expert=("expert", 1),
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
    )
    for name, model in (("a", "stock"), ("b", "ours"), ("base", "ckpt")):
        add_render(graph, name, (model, 0))
    entry = comfy.run(graph)
    assert pixels(comfy, entry, "a") == pixels(comfy, entry, "b") != pixels(comfy, entry, "base")
    assert "lora key not loaded" not in comfy.log_text()[logged:]
    assert "NOT LOADED" not in comfy.log_text()[logged:]


def test_training_between_two_renders_does_not_change_them(comfy):
    first = comfy.run(add_render(with_model(), "first", ("ckpt", 0)))
    train(comfy, steps=2, seed=11)
    graph = with_model()
    graph["same"] = node("LatentMultiply", samples=("latent", 0), multiplier=1.0)  # not in the host's cache
    second = comfy.run(add_render(graph, "second", ("ckpt", 0), latent=("same", 0)))
    assert pixels(comfy, first, "first") == pixels(comfy, second, "second")


def test_training_after_a_render_with_an_expert_uses_the_base_weights(comfy):
    _, plain = train(comfy, seed=12)
    graph = add_expert(with_model())
    settings = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    graph["apply"] = node("AlignGuardApplySafetyExpert", model=("ckpt", 0), expert=("expert", 1), **settings)
    comfy.run(add_render(graph, "patched", ("apply", 0)))
    _, after = train(comfy, seed=13)
    first, second = (
        load_expert(loras(comfy) / name).metadata["alignguard.base_hash"] for name in (plain, after)
    )
    assert first == second


def test_the_only_picture_of_a_training_run_is_its_loss_curve(comfy):
    before = served_files(comfy)
    entry, new = train(comfy, seed=14)
    (curve,) = comfy.saved_files(entry)
    with Image.open(curve) as picture:
        assert (picture.size, picture.info) == ((512, 256), {})  # and no prompt in the file
    assert served_files(comfy) - before == {curve, loras(comfy) / new}


def test_an_open_browser_shows_the_loss_curve_and_the_time_left_during_training(comfy):
    steps = 6  # a step takes almost a second, and pictures are more than a second apart
    graph = add_training(with_model(), steps=steps, batch_size=2, seed=31, filename_prefix="watched")
    messages = watched_run(comfy, graph)
    texts = [text for node, text in messages.texts if node == "train" and text.startswith("step ")]
    shown = [re.fullmatch(rf"step (\d+) of {steps}, loss \S+, (\S+ \S+) left", text) for text in texts]
    assert all(shown)
    numbers = [int(match[1]) for match in shown]
    assert numbers == sorted(set(numbers))
    assert (numbers[-1], shown[-1][2]) == (steps, "0.0 s")
    pictures = [data for node, data in messages.pictures if node == "train"]
    assert len(pictures) == len(texts)  # one loss curve with each text, never a picture of a pair
    for data in pictures:
        with Image.open(io.BytesIO(data)) as picture:
            assert (picture.format, picture.size) == ("JPEG", (512, 256))
    done = [data for kind, data in messages.events if kind == "progress" and data["node"] == "train"]
    assert [data["value"] for data in done if data["max"] == steps][-1] == steps


def test_cancelling_stops_after_the_current_step_and_saves_a_partial_expert(comfy):
    before = saved_experts(comfy)
    settings = {"steps": 5000, "lr_schedule": "constant", "save_every": 1, "seed": 15}
    graph = add_training(with_model(), **settings, filename_prefix="cancelled")
    prompt = comfy.post(graph)
    states = comfy.base_dir / "user" / "__alignguard" / "runs" / "cancelled" / "state"
    wait_for(lambda: any(states.glob("*.safetensors")))
    done = steps_in(states)
    comfy.interrupt()
    with pytest.raises(ComfyError, match="interrupted in node train"):
        comfy.wait(prompt, timeout_s=CANCEL_LIMIT_S)
    (partial,) = saved_experts(comfy) - before
    expert = load_expert(loras(comfy) / partial)
    assert partial == "alignguard/cancelled_00001__partial.safetensors"
    assert (
        int(expert.metadata["alignguard.steps"]) - done <= 3
    )  # steps between reading the disk and the cancel
    assert expert.metadata["alignguard.complete"] == "false"


def test_cancelling_while_pairs_are_encoded_leaves_no_file(comfy):
    before = saved_experts(comfy)
    graph = add_training(with_model(), steps=5000, seed=16, max_pairs=0, resolution=SLOW_RESOLUTION)
    prompt = comfy.post(graph)
    cache = comfy.base_dir / "user" / "__alignguard" / "cache"
    entries = len(list(cache.rglob("*.*")))
    wait_for(lambda: len(list(cache.rglob("*.*"))) > entries)
    comfy.interrupt()
    with pytest.raises(ComfyError, match="interrupted in node train"):
        comfy.wait(prompt, timeout_s=CANCEL_LIMIT_S)
    assert saved_experts(comfy) == before


def served_files(server) -> set:
    """Return every file in the folders that the web server hands out and that a run writes to."""
    folders = (server.base_dir / "temp", server.output_dir)
    return {file for folder in folders for file in folder.rglob("*") if file.is_file()}


def steps_in(states) -> int:
    return max(int(file.stem.removeprefix("step_")) for file in states.glob("step_*.safetensors"))


def test_a_patched_model_is_the_base_of_an_expert_if_bake_patches_is_set(comfy):
    graph = add_training(with_model(), bake_patches=True, filename_prefix="on_top")
    graph["lora"] = node("AlignGuardLoadSafetyExpert", model=("ckpt", 0), expert_name=SHOCKING, strength=1.0)
    graph["train"]["inputs"]["model"] = ["lora", 0]
    before = saved_experts(comfy)
    entry = comfy.run(graph)
    (on_top,) = saved_experts(comfy) - before
    plain_entry, plain = train(comfy, filename_prefix="on_base")
    lines = text_of(entry, "train").splitlines()
    (line,) = (line for line in lines if "include patches of the MODEL" in line)
    patched_layers = load_expert(loras(comfy) / on_top).layers
    assert int(line.split()[0]) == len(patched_layers)
    assert "include patches" not in text_of(plain_entry, "train")
    hashes = {load_expert(loras(comfy) / name).metadata["alignguard.base_hash"] for name in (on_top, plain)}
    assert len(hashes) == 2  # the files record different base models
