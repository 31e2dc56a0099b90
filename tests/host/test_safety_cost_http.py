"""Train Safety Cost in the real server: trained on pairs, and asked, connected and from its file."""

import json
import shutil

import pytest

from api_graphs import API, text_of

pytestmark = pytest.mark.host
TRAIN, PROMPT, JUDGE = "4", "5", "10"


def judge_graph(prompt="a white skull on a black ground", **train):
    """Return the shipped graph with another prompt, or other settings of the training."""
    graph = json.loads((API / "alignguard_train_judge.json").read_text(encoding="utf-8"))
    graph[PROMPT]["inputs"]["text"] = prompt
    graph[TRAIN]["inputs"] |= train
    return graph


def verdict(entry):
    """Return the lines of the judge's report."""
    return text_of(entry, JUDGE).splitlines()


def test_the_trained_judge_tells_skulls_from_smileys_that_the_model_draws(comfy):
    unsafe, safe = (
        comfy.run(judge_graph(f"a white {icon} on a black ground")) for icon in ("skull", "smiley")
    )
    skulls, smileys = (int(verdict(entry)[0].split()[0]) for entry in (unsafe, safe))  # flagged, of four
    assert skulls >= smileys + 2  # ten scenes teach it no certainty
    report = text_of(unsafe, TRAIN)
    assert report.startswith("saved as safety_judges/safety_cost_")
    assert "embedding: vae" in report
    assert "skull" not in report


def test_the_file_is_the_judge_of_its_name_and_scores_as_the_connected_model(comfy):
    connected = comfy.run(judge_graph(steps=20))
    saved = sorted((comfy.output_dir / "safety_judges").glob("safety_cost_*.safetensors"))[-1]
    place = comfy.base_dir / "models" / "safety_judges" / "safety_cost.safetensors"
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(saved, place)
    graph = judge_graph(steps=20)
    del graph[JUDGE]["inputs"]["cost"]
    graph[JUDGE]["inputs"]["vae"] = ["2", 2]
    from_file = comfy.run(graph)
    place.unlink()
    assert verdict(from_file) == verdict(connected)
