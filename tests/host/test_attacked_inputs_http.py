"""Every widget and every socket of every node, attacked in the real server.

One input at a time gets what no person enters; all others are as in the shipped graphs. ComfyUI refuses most
of it before anything runs. What reaches a node must end there with a sentence of this pack, and afterwards
the server draws what it drew before. The server lists the inputs, so a new one cannot be forgotten.
"""

import json
import math
import time
import urllib.error
import urllib.request
from functools import cache

import pytest

from api_graphs import API, PAIRS, PROMPT, SHORT, add_expert, add_render, node, pixels, with_model
from test_nodes_http import OURS

pytestmark = pytest.mark.host

LONG = "a" * 100_000
NOTHING = (None, "", {}, [])
PATHS = ("../../x", "/etc/hostname", "a\0b", LONG)
ATTACKS = {
    "number": (*NOTHING, math.nan, math.inf, 1e308, -1e308, 2**70, "abc", [1, 2, 3]),
    "BOOLEAN": ({}, "no"),
    "STRING": (*NOTHING, *PATHS, math.nan, [1, 2, 3]),
    "choice": (*NOTHING, *PATHS, math.nan, 5, [1, 2, 3]),
    "socket": (*NOTHING, "abc", 5, math.nan, {"__value__": [1, 2]}, ["expert", 99], ["nowhere", 0]),
}
CONVERTED = ("BOOLEAN", "STRING")  # ComfyUI turns anything into a value of these, which may then be valid
FREE = "category"  # a choice that takes names of the user's own
OF_HOST = ("MODEL", "CLIP", "VAE", "CLIP_VISION", "CONDITIONING", "IMAGE")  # may end with an error of ComfyUI
SOURCES = {  # type of a socket -> what feeds it
    "MODEL": ("ckpt", 0),
    "CLIP": ("ckpt", 1),
    "VAE": ("ckpt", 2),
    "CONDITIONING": ("pos", 0),
    "IMAGE": ("image", 0),
    "SAFETY_EXPERT": ("expert", 1),
    "SAFETY_PAIRS": ("pairs", 0),
    "CONCEPT_VECTOR": ("concept", 0),
    "PROMPT_SET": ("prompts", 0),
}
CONNECTED = {  # what else a node needs, or works less with
    "AlignGuardMergeSafetyExperts": {"method": "concat"},
    "AlignGuardPromptGuard": {"trained": ("guard", 0), "clip": SOURCES["CLIP"], "mode": "stop"},
    "AlignGuardPromptInterpreter": {
        "trained": ("interpreter", 0),
        "clip": SOURCES["CLIP"],
        "mode": "stop",
    },
    "AlignGuardTrainPromptGuard": {"clip": SOURCES["CLIP"], "steps": 1},
    "AlignGuardTrainPromptInterpreter": {"clip": SOURCES["CLIP"], "steps": 1},
    "AlignGuardTrainSafetyCost": {"vae": SOURCES["VAE"]},
}
FILE = f"{PAIRS}/pairs.jsonl"
LINKED = {  # texts that come through a link in the shipped graphs
    "prompts": f"{PROMPT} => a white smiley on a black ground",
    "text": PROMPT,
}
ERRORS = ("ValueError", "FileNotFoundError", "RuntimeError")
LONGEST_SENTENCE = 2000
LONGEST_S = 1.0  # of a run whose values turn out to be valid; it is then cancelled


@pytest.fixture(scope="module")
def comfy(start_comfy):
    """A server of its own, because attacks leave files and lines in the log."""
    with start_comfy() as server:
        yield server


@cache
def shipped() -> dict[str, dict]:
    """Return the widgets of every node of the pack, as a shipped graph sets them."""
    widgets = {}
    for file in sorted(API.glob("*.json")):
        for entry in json.loads(file.read_text(encoding="utf-8")).values():
            values = {name: value for name, value in entry["inputs"].items() if not isinstance(value, list)}
            widgets[entry["class_type"]] = values | SHORT.get(entry["class_type"], {})
    return widgets


def sources() -> dict:
    graph = add_expert(with_model())
    graph["image"] = node("EmptyImage", width=64, height=64, batch_size=1, color=0)
    graph["pairs"] = node("AlignGuardLoadSafetyPairs", folder=PAIRS, category="all", max_pairs=2)
    graph["concept"] = node("AlignGuardConceptVector", clip=("ckpt", 1), prompts="a skull | a ball")
    graph["prompts"] = node("AlignGuardLoadPromptSet", file=FILE, category="all", max_prompts=1)
    for guard, trains in (
        ("guard", "AlignGuardTrainPromptGuard"),
        ("interpreter", "AlignGuardTrainPromptInterpreter"),
    ):
        graph[guard] = node(trains, **(shipped()[trains] | CONNECTED[trains]))
    return graph


def inputs_of(comfy, name: str) -> dict[str, tuple[str, bool]]:
    """Return the type of every input of a node, and whether it is required."""
    info = comfy.object_info(name)[name]["input"]
    return {
        at: (spec[0], part == "required")
        for part in ("required", "optional")
        for at, spec in info.get(part, {}).items()
    }


def kind_of(io_type) -> str:
    """Return which of `ATTACKS` suits an input of this type."""
    if isinstance(io_type, list) or io_type == "COMBO":
        return "choice"
    if io_type in ("INT", "FLOAT"):
        return "number"
    return io_type if io_type in ATTACKS else "socket"


def with_target(name: str, inputs: dict) -> dict:
    """Return a valid graph with one node `target`, whose first output is shown."""
    values = dict(shipped()[name])
    for at, (io_type, required) in inputs.items():
        if required and at not in values:
            values[at] = SOURCES[io_type] if kind_of(io_type) == "socket" else LINKED[at]
    values |= CONNECTED.get(name, {})
    graph = sources() | {"target": node(name, **values)}
    return needed(graph | {"shown": node("PreviewAny", source=("target", 0))}, "shown")


def needed(graph: dict, name: str) -> dict:
    """Return a node and all that feeds it."""
    kept, left = {}, [name]
    while left:
        name = left.pop()
        kept[name] = graph[name]
        links = [value for value in graph[name]["inputs"].values() if isinstance(value, list)]
        left += [link[0] for link in links if link[0] not in kept]
    return kept


def posted(comfy, graph: dict) -> tuple[str, list[dict]]:
    """Queue a prompt; return its id, or "", and the errors of its nodes."""
    body = json.dumps({"prompt": graph}).encode()
    request = urllib.request.Request(f"{comfy.url}/prompt", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            accepted = json.load(answer)
    except urllib.error.HTTPError as refused:
        answer = json.load(refused)
        errors = [error for report in answer["node_errors"].values() for error in report["errors"]]
        return "", errors or [answer["error"]]
    errors = [error for report in accepted["node_errors"].values() for error in report["errors"]]
    if errors:  # a node that feeds the attacked one may be an output too, and runs without it
        ended(comfy, accepted["prompt_id"])
    return "" if errors else accepted["prompt_id"], errors


def ended(comfy, prompt_id: str, limit_s: float = 300) -> dict | None:
    """Wait for the end of a prompt; return its error, {} if it was cancelled, None if it succeeded."""
    started, cancelled = time.monotonic(), False
    while not (entry := comfy.history(prompt_id)):
        time.sleep(0.005)
        if not cancelled and time.monotonic() - started > limit_s:
            comfy.interrupt()
            cancelled = True
    for event, data in entry["status"]["messages"]:
        if event == "execution_error":
            return data
        if event == "execution_interrupted":
            return {}
    return None


def complaint(comfy, graph: dict, at: str, value, io_type, required: bool) -> str:
    """Return what is wrong with the answer to an attack, or ""."""
    graph["target"]["inputs"][at] = value
    prompt_id, errors = posted(comfy, graph)
    if not prompt_id:
        sentences = [f"{error['message']} {error['details']}" for error in errors]
        wrong = [error for error in errors if error["type"] == "exception_during_validation"]
        by_link = isinstance(value, list) and len(value) == 2
        return f"refused with {sentences}" if not errors or (wrong and not by_link) else ""
    kind = kind_of(io_type)
    absent = kind == "socket" and value is None and not required
    is_text = isinstance(value, str) and (at == FREE or "STRING" in io_type)
    may_run = kind in CONVERTED or absent or is_text
    error = ended(comfy, prompt_id, *[LONGEST_S] * may_run)
    if not error:
        return "" if may_run else "taken"
    if kind == "socket" and io_type in OF_HOST:
        return ""
    short = len(error["exception_message"]) < LONGEST_SENTENCE
    if error["exception_type"] in ERRORS and short and "alignguard" in "".join(error["traceback"]):
        return ""
    return f"{error['exception_type']}: {error['exception_message'][:200]}"


@pytest.mark.parametrize("name", OURS)
def test_an_attacked_input_is_refused_and_the_next_prompt_is_right(comfy, name):
    picture = add_render(with_model(), "picture", ("ckpt", 0))
    before = pixels(comfy, comfy.run(picture), "picture")
    inputs = inputs_of(comfy, name)
    valid = json.dumps(with_target(name, inputs))
    prompt_id, errors = posted(comfy, json.loads(valid))
    assert errors == []
    ended(comfy, prompt_id)
    complaints = {
        f"{at} = {value!r:.40}": said
        for at, (io_type, required) in inputs.items()
        for value in ATTACKS[kind_of(io_type)]
        if (said := complaint(comfy, json.loads(valid), at, value, io_type, required))
    }
    assert complaints == {}
    assert pixels(comfy, comfy.run(picture), "picture") == before
