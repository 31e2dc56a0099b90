"""The clients for the HTTP API against a real ComfyUI: submit, follow, fetch, cancel, errors as JSON."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from api_graphs import API, add_expert, add_render, add_training, node, with_model
from comfy_server import wait_for
from virtual_environment import ROOT

pytestmark = pytest.mark.host

FOLDER = ROOT / "clients"
CLIENTS = {
    "python": lambda url: [sys.executable, str(FOLDER / "headless.py"), "--server", url],
    "curl": lambda url: ["sh", str(FOLDER / "headless.sh")],
}


@pytest.fixture(params=CLIENTS)
def client(request, comfy, tmp_path):
    """Return a function that starts a client on a graph, with a folder for the files."""
    if request.param == "curl" and not all(map(shutil.which, ("sh", "curl", "jq"))):
        pytest.skip("curl or jq is not installed")

    def start(graph: dict, *, fetch: bool = True) -> subprocess.Popen:
        file = tmp_path / "graph.json"
        file.write_text(json.dumps(graph))
        out = [str(tmp_path / "out")] if fetch else []
        words = [*CLIENTS[request.param](comfy.url), str(file)]
        words += ["--out", *out] if fetch and request.param == "python" else out
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # a shell that starts the tests in the background makes all of their children ignore Ctrl+C
        heard = (
            {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)} if os.name == "posix" else {}
        )
        return subprocess.Popen(words, env=os.environ | {"SERVER": comfy.url}, **pipes, **heard)

    return start


def ended(process: subprocess.Popen) -> tuple[int, dict, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, json.loads(out), err


def picture_and_expert(prefix: str) -> dict:
    graph = add_render(add_expert(with_model()), "picture", ("ckpt", 0))
    inputs = {"expert": ("expert", 1), "filename_prefix": prefix, "dtype": "fp16"}
    return graph | {"save": node("AlignGuardSaveSafetyExpert", **inputs)}


def test_a_graph_runs_and_its_picture_and_expert_are_fetched(comfy, client, tmp_path, request):
    code, answer, err = ended(client(picture_and_expert(f"headless_{request.node.callspec.id}")))
    assert (code, answer["status"], answer["errors"]) == (0, "success", [])
    assert "saved as loras/alignguard/" in answer["texts"]["save"][0]
    files = {file.suffix: file for file in (tmp_path / "out").iterdir()}
    assert files.keys() == {".png", ".safetensors"}
    (saved,) = comfy.saved_files(comfy.history(answer["prompt_id"]))
    assert files[".png"].read_bytes() == saved.read_bytes()
    expert = comfy.output_dir / answer["texts"]["save"][0].splitlines()[0].removeprefix("saved as ")
    assert files[".safetensors"].read_bytes() == expert.read_bytes()


def test_what_comfyui_takes_from_its_cache_is_fetched_too(client, tmp_path, request):
    graph = picture_and_expert(f"cached_{request.node.callspec.id}")
    answers = []
    for _ in range(2):
        answers.append(ended(client(graph))[1]["texts"])
        assert {file.suffix for file in (tmp_path / "out").iterdir()} == {".png", ".safetensors"}
        shutil.rmtree(tmp_path / "out")
    assert answers[0].keys() == answers[1].keys() == {"save"}


def test_a_refused_graph_names_node_and_sentence(client):
    graph = add_expert(with_model(), file="gone.safetensors")
    graph["info"] = node("AlignGuardSafetyExpertInfo", expert=("expert", 1))
    code, answer, _ = ended(client(graph))
    assert (code, answer["status"]) == (2, "refused")
    (error,) = answer["errors"]
    assert (error["node"], error["class_type"]) == ("expert", "AlignGuardLoadSafetyExpert")
    assert "gone.safetensors" in error["sentence"]


def test_a_node_that_fails_is_named_with_its_sentence(comfy, client):
    torn = comfy.models_dir / "safety_experts" / "torn.safetensors"
    torn.write_bytes(b"torn")
    graph = add_expert(with_model(), file="torn.safetensors")
    graph["info"] = node("AlignGuardSafetyExpertInfo", expert=("expert", 1))
    code, answer, _ = ended(client(graph))
    torn.unlink()
    assert (code, answer["status"]) == (1, "error")
    (error,) = answer["errors"]
    assert error["node"] == "expert"
    assert "torn.safetensors is damaged or incomplete" in error["sentence"]


def test_ctrl_c_cancels_this_prompt_and_leaves_the_next_one(comfy, client):
    process = client(add_training(with_model(), steps=500, lr_schedule="constant"))
    assert process.stderr.readline().startswith("queued as ")  # from now on it knows what to cancel
    wait_for(lambda: bool(comfy.queue()["queue_running"]))
    other = comfy.post(add_render(with_model(), "next", ("ckpt", 0)))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert comfy.wait(other)["status"]["status_str"] == "success"


def test_progress_is_followed_through_the_websocket(comfy, tmp_path):
    graph = json.loads((API / "alignguard_load_and_apply.json").read_text(encoding="utf-8"))
    sampler = next(number for number, part in graph.items() if part["class_type"] == "KSampler")
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    command = [*CLIENTS["python"](comfy.url), str(tmp_path / "graph.json"), "--set", f"{sampler}.steps=3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert "KSampler: 3 of 3" in done.stderr


def test_a_server_that_is_not_there_is_said(tmp_path):
    (tmp_path / "graph.json").write_text("{}")
    command = [*CLIENTS["python"]("http://127.0.0.1:9"), str(tmp_path / "graph.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "http://127.0.0.1:9 does not answer" in json.loads(done.stdout)["errors"][0]["sentence"]
