"""The pack in a real ComfyUI: its node schemas, help pages and graphs, and that its workflows run.

`tests/host/record_schemas.py` writes the schemas compared here.
"""

import json
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest

from api_graphs import (
    HATE,
    SHOCKING,
    add_expert,
    add_render,
    node,
    pixels,
    shipped_prompt,
    text_of,
    with_model,
)
from record_schemas import on_every_host, schema

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = json.loads((ROOT / "tests" / "alignguard_nodes" / "node_schemas.json").read_text(encoding="utf-8"))
OURS = [name for name in SCHEMAS if name.startswith("AlignGuard")]
WORKFLOWS = sorted(file.stem for file in (ROOT / "workflows" / "api").glob("*.json"))
TEMPLATES = sorted(file.stem for file in (ROOT / "workflows").glob("*.json"))

pytestmark = pytest.mark.host


def get(server, path: str) -> bytes:
    with urllib.request.urlopen(server.url + path, timeout=30) as answer:
        return answer.read()


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_host_has_every_node_with_its_recorded_schema(comfy, name):
    recorded = SCHEMAS[name]
    info = schema(comfy.object_info(name)[name])
    live = on_every_host(info, recorded, is_stock=name not in OURS)
    assert live == recorded, "after a deliberate change, run tests/host/record_schemas.py"
    for part in ("required", "optional"):  # saved graphs store values in this order
        assert list(live[part]) == list(recorded[part])


def test_every_input_and_output_has_a_tooltip(comfy):
    for name in OURS:
        info = comfy.object_info(name)[name]
        inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        assert [key for key, spec in inputs.items() if not spec[1].get("tooltip")] == []
        assert all(info["output_tooltips"])


def test_help_pages_and_graphs_are_served(comfy):
    for name in OURS:
        assert get(comfy, f"/extensions/alignguard/docs/{name}.md").startswith(b"# ")
    assert sorted(json.loads(get(comfy, "/workflow_templates"))["alignguard"]) == TEMPLATES
    for name in TEMPLATES:
        assert json.loads(get(comfy, f"/api/workflow_templates/alignguard/{quote(name)}.json"))["nodes"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_shipped_workflow_runs(comfy, name):
    entry = comfy.run(shipped_prompt(name))
    assert sum(len(output.get("images", ())) for output in entry["outputs"].values()) >= 2  # before and after


def test_load_applies_an_expert_to_a_model_as_apply_does(comfy):
    graph = add_expert(with_model())
    graph["loaded"] = node(
        "AlignGuardLoadSafetyExpert", expert_name=SHOCKING, strength=0.7, model=("ckpt", 0)
    )
    graph["applied"] = apply("expert", strength=0.7)
    add_render(graph, "a", ("loaded", 0))
    add_render(graph, "b", ("applied", 0))
    entry = comfy.run(graph)
    assert pixels(comfy, entry, "a") == pixels(comfy, entry, "b")
    assert text_of(entry, "loaded").startswith("All ")


def test_strength_zero_draws_as_the_base_model_and_strength_one_does_not(comfy):
    graph = add_render(add_expert(with_model()), "base", ("ckpt", 0))
    graph |= {"off": apply("expert", strength=0.0), "on": apply("expert")}
    add_render(graph, "a", ("off", 0))
    add_render(graph, "b", ("on", 0))
    entry = comfy.run(graph)
    assert pixels(comfy, entry, "base") == pixels(comfy, entry, "a") != pixels(comfy, entry, "b")


def test_a_range_of_steps_draws_neither_as_the_base_model_nor_as_the_whole_expert(comfy):
    graph = add_render(add_expert(with_model()), "base", ("ckpt", 0))
    ranges = {"all": (0.0, 1.0), "early": (0.0, 0.5), "late": (0.5, 1.0), "nearly": (0.0, 0.999)}
    for name, (start, end) in ranges.items():
        graph[f"model_{name}"] = apply("expert", start_percent=start, end_percent=end)
        add_render(graph, name, (f"model_{name}", 0))
    add_render(graph, "base_again", ("ckpt", 0), latent=("same", 0))
    graph["same"] = node("LatentMultiply", samples=("latent", 0), multiplier=1.0)  # not in the host's cache
    entry = comfy.run(graph)
    pictures = {name: pixels(comfy, entry, name) for name in ("base", *ranges)}
    assert len({pictures[name] for name in ("base", "all", "early", "late")}) == 4
    assert closest(pictures["nearly"], pictures) == "all"  # switching changes nothing
    assert pixels(comfy, entry, "base_again") == pictures["base"]  # the expert is removed afterwards


def closest(picture: bytes, pictures: dict[str, bytes]) -> str:
    def distance(name: str) -> int:
        return sum(abs(a - b) for a, b in zip(picture, pictures[name], strict=True))

    return min((name for name in pictures if name != "nearly"), key=distance)


def test_a_loader_whose_model_output_is_used_without_a_model_says_what_to_connect(comfy):
    message = "Load Safety Expert has no model to return"
    assert message not in comfy.log_text()  # no warning for an unused model output
    graph = add_render(add_expert(with_model()), "nothing", ("expert", 0))
    entry = comfy.run(graph)
    assert "nothing" not in entry["outputs"]
    assert message in comfy.log_text()


def test_a_merge_reports_dropped_calibration_lines(comfy):
    graph = add_expert(add_expert(with_model()), "other", HATE)
    experts = {"expert_1": ("expert", 1), "expert_2": ("other", 1), "method": "co_merge"}
    base = {"model": ("ckpt", 0), "clip": ("ckpt", 1), "resolution": 64, "timesteps": 1}
    graph["text"] = node("PrimitiveStringMultiline", value="a skull\na skull\nerotic picture of a kid")
    graph["merged"] = node("AlignGuardMergeSafetyExperts", calibration=("text", 0), **experts, **base)
    graph["info"] = node("AlignGuardSafetyExpertInfo", expert=("merged", 0))
    entry = comfy.run(graph)
    assert "calibration lines dropped by the rule on minors: 1" in text_of(entry, "merged")


def test_an_expert_merged_with_another_at_strength_zero_is_unchanged(comfy):
    graph = add_expert(add_expert(with_model()), "other", HATE)
    graph["merged"] = node(
        "AlignGuardMergeSafetyExperts",
        expert_1=("expert", 1),
        expert_2=("other", 1),
        strength_2=0.0,
        method="concat",
    )
    graph |= {"one": apply("expert"), "both": apply("merged", slot=0)}
    add_render(graph, "a", ("one", 0))
    add_render(graph, "b", ("both", 0))
    entry = comfy.run(graph)
    assert pixels(comfy, entry, "a") == pixels(comfy, entry, "b")


def apply(expert: str, slot: int = 1, **settings) -> dict:
    settings = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, **settings}
    return node("AlignGuardApplySafetyExpert", model=("ckpt", 0), expert=(expert, slot), **settings)
