"""Merging in a real ComfyUI: the facts shown, merges of merges, and a merged file in the stock loader."""

import re

import pytest

from api_graphs import (
    HATE,
    PAIRS,
    SHOCKING,
    add_expert,
    add_render,
    node,
    pixels,
    saved_experts,
    text_of,
    with_model,
)

pytestmark = pytest.mark.host

VIOLENCE = "alignguard_mini_violence.safetensors"


def three_experts() -> dict:
    graph = add_expert(with_model(), "shocking", SHOCKING)
    return add_expert(add_expert(graph, "hate", HATE), "violence", VIOLENCE)


def merge(*experts: tuple, **settings) -> dict:
    inputs = {f"expert_{number}": expert for number, expert in enumerate(experts, start=1)}
    return node("AlignGuardMergeSafetyExperts", **inputs, **settings)


def apply(expert: tuple) -> dict:
    settings = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    return node("AlignGuardApplySafetyExpert", model=("ckpt", 0), expert=expert, **settings)


def test_a_merge_of_a_merge_lists_its_members_down_to_the_original_files(comfy):
    graph = three_experts()
    graph["two"] = merge(("shocking", 1), ("hate", 1), method="average", strength_2=0.5)
    graph["three"] = merge(("two", 0), ("violence", 1), method="concat")
    graph["info"] = node("AlignGuardSafetyExpertInfo", expert=("three", 0))
    report = text_of(comfy.run(graph), "info")
    assert "categories: hate, violence, shocking" in report
    lines = [line.split(",")[:2] for line in report.split("members:\n")[1].splitlines()[:4]]
    assert lines == [
        ["  1 average of 2 experts", " strength 1"],
        [f"      1 {SHOCKING}", " strength 1"],
        [f"      2 {HATE}", " strength 0.5"],
        [f"  2 {VIOLENCE}", " strength 1"],
    ]


def test_a_saved_merge_draws_the_same_with_apply_and_the_stock_loader_and_shows_the_same_facts(comfy):
    base = {"model": ("ckpt", 0), "clip": ("ckpt", 1), "resolution": 64, "timesteps": 1}
    graph = three_experts()
    graph["text"] = node("PrimitiveStringMultiline", value="a skull\na red skull\na broken heart")
    graph["merged"] = merge(("shocking", 1), ("hate", 1), method="co_merge", calibration=("text", 0), **base)
    graph["save"] = node(
        "AlignGuardSaveSafetyExpert", expert=("merged", 0), filename_prefix="both", dtype="fp32"
    )
    graph["ours"] = apply(("merged", 0))
    add_render(graph, "a", ("ours", 0))
    before = saved_experts(comfy)
    first = comfy.run(graph)
    (name,) = saved_experts(comfy) - before

    logged = len(comfy.log_text())
    graph = add_expert(with_model(), "both", name)
    strengths = {"strength_model": 1.0, "strength_clip": 1.0}
    graph["stock"] = node("LoraLoader", model=("ckpt", 0), clip=("ckpt", 1), lora_name=name, **strengths)
    graph["info"] = node("AlignGuardSafetyExpertInfo", expert=("both", 1))
    for picture, model in (("b", "stock"), ("base", "ckpt")):
        add_render(graph, picture, (model, 0))
    second = comfy.run(graph)
    assert pixels(comfy, first, "a") == pixels(comfy, second, "b") != pixels(comfy, second, "base")
    assert "lora key not loaded" not in comfy.log_text()[logged:]
    merged_facts, saved_facts = text_of(first, "merged").splitlines(), text_of(second, "info").splitlines()
    assert merged_facts[1:] == saved_facts[1:]  # the first line is the name
    assert "output neurons won:" in saved_facts
    assert pixels(comfy, first, "merged") == pixels(comfy, second, "info")  # the picture of the neurons won


def test_a_merge_whose_output_the_host_has_dropped_is_not_made_again(comfy):
    base = {"model": ("ckpt", 0), "clip": ("ckpt", 1), "resolution": 64, "timesteps": 1, "output_rank": 3}
    graph = three_experts()
    graph["text"] = node("PrimitiveStringMultiline", value="a skull\na broken heart")
    graph["one"] = merge(("shocking", 1), ("hate", 1), method="co_merge", calibration=("text", 0), **base)
    graph["info"] = node("AlignGuardSafetyExpertInfo", expert=("one", 0))
    first = comfy.run(graph)
    graph["one"]["inputs"]["strength_3"] = 0.5  # of no expert: equal inputs, but not in the host's cache
    again = comfy.run(graph)
    reports = [text_of(entry, "one") for entry in (first, again)]
    said = "Nothing was merged: an earlier merge had equal inputs, and this is its expert."
    assert reports[1] == f"{said}\n{reports[0]}"
    assert text_of(first, "info") == text_of(again, "info")


def test_an_expert_that_was_not_merged_shows_no_picture(comfy):
    graph = add_expert({}, "shocking", SHOCKING)
    graph["info"] = node("AlignGuardSafetyExpertInfo", expert=("shocking", 1))
    assert "images" not in comfy.run(graph)["outputs"]["info"]


def test_calibration_uses_the_pictures_of_pairs_if_a_vae_is_connected(comfy):
    graph = add_expert(add_expert(with_model(), "shocking", SHOCKING), "hate", HATE)
    graph["pairs"] = node("AlignGuardLoadSafetyPairs", folder=PAIRS, category="all", max_pairs=2)
    base = {"model": ("ckpt", 0), "clip": ("ckpt", 1), "resolution": 64, "timesteps": 1}
    inputs = {"calibration": ("pairs", 0), "prompts_per_category": 2, "method": "co_merge", **base}
    graph["drawn"] = merge(("shocking", 1), ("hate", 1), **inputs)
    graph["pictures"] = merge(("shocking", 1), ("hate", 1), vae=("ckpt", 2), **inputs)
    for name in ("drawn", "pictures"):
        graph[f"{name}_info"] = node("AlignGuardSafetyExpertInfo", expert=(name, 0))
    entry = comfy.run(graph)
    assert "calibration latents: drawn by the base model" in text_of(entry, "drawn_info")
    assert "calibration latents: pictures" in text_of(entry, "pictures_info")


def test_regmean_takes_everyday_prompts_with_pairs_and_says_so(comfy):
    graph = add_expert(with_model(), "shocking", SHOCKING)
    graph["pairs"] = node("AlignGuardLoadSafetyPairs", folder=PAIRS, category="all", max_pairs=2)
    graph["text"] = node("PrimitiveStringMultiline", value="shocking: a skull\nneutral: a flower")
    base = {"model": ("ckpt", 0), "clip": ("ckpt", 1), "resolution": 64, "timesteps": 1}
    settings = {"prompts_per_category": 2, "method": "regmean", **base}
    twice = ("shocking", 1), ("shocking", 1)  # both have prompts of their category among the pairs
    graph["pictures"] = merge(*twice, calibration=("pairs", 0), vae=("ckpt", 2), **settings)
    graph["drawn"] = merge(*twice, calibration=("pairs", 0), **settings)
    graph["lines"] = merge(*twice, calibration=("text", 0), **settings)
    for name in ("pictures", "drawn", "lines"):
        graph[f"{name}_info"] = node("AlignGuardSafetyExpertInfo", expert=(name, 0))
    entry = comfy.run(graph)
    everyday = (
        "8 everyday prompts and 8 sentences of the pairs with everyday words and 2 safe prompts of the pairs"
    )
    for name, neutral in (
        ("pictures", everyday),
        ("drawn", everyday),
        ("lines", "1 neutral line of the text"),
    ):
        line = f"neutral inputs of the calibration: {neutral}"
        for node_of_text in (name, f"{name}_info"):
            assert line in text_of(entry, node_of_text).splitlines()


def test_distill_trains_the_merge_on_its_experts_and_says_what_it_reached(comfy):
    graph = add_expert(with_model(), "shocking", SHOCKING)
    graph["text"] = node("PrimitiveStringMultiline", value="shocking: a skull\nneutral: a flower")
    base = {"model": ("ckpt", 0), "clip": ("ckpt", 1), "resolution": 64, "timesteps": 1}
    twice = ("shocking", 1), ("shocking", 1)
    graph["merged"] = merge(
        *twice, calibration=("text", 0), method="distill", distill_steps=3, strength_2=0.5, **base
    )
    graph["info"] = node("AlignGuardSafetyExpertInfo", expert=("merged", 0))
    text = text_of(comfy.run(graph), "merged")
    reached = re.search(r"^share of the experts' answers that distillation reached: (\S+)$", text, re.M)
    assert 0 < float(reached[1]) <= 1
    assert "merge method: distill" in text.splitlines()
