"""Thousands of prompts through the real server: errors, equal pictures, memory, and time against stock.

    python dev.py bench load --count 2000     as many prompts, of two clients at once

Each round is a mixture of everything (load, apply, merge, judge, cancel), and then the same pictures twice:
with our loader and with ComfyUI's own. The times are the server's own stamps.
"""

import hashlib
import json
import math
import os
import statistics
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from api_graphs import HATE, SHOCKING, add_expert, node, with_model
from base_folder import link_file
from comfy_server import ComfyError, ComfyServer
from server_drawer import bench_server

PROMPTS = 2000
CLIENTS = 2
BLOCK = 4  # prompts of our loader, and of the stock one, in a round
STEADY_AFTER = 100  # prompts until the server has loaded what it needs
SEEDS = 4
LONG_STEPS = 200  # of a prompt that is cancelled
LIMIT_S = 300
SAME = "alignguard_mini_stock.safetensors"  # the same expert, where the stock loader looks
OURS, STOCK, CANCEL = "load", "stock", "cancel"
MIXED = ("apply", "merge", "judge", OURS, STOCK, CANCEL)  # in one round, each once for each client


class Ended(NamedTuple):
    """A prompt that has ended.

    Attributes:
        kind: one of `MIXED`.
        seed: of its picture.
        status: "success", "cancelled", or the error.
        result: hash of its picture and of what the judge said.
        begin: when the server started it, in seconds.
        end: when the server had finished it, likewise.
    """

    kind: str
    seed: int
    status: str
    result: str
    begin: float
    end: float


def measure(count: int = PROMPTS) -> dict[str, Any]:
    """Send at least `count` prompts to a server of their own."""
    with bench_server() as server:
        return load(server, count)


def load(server: ComfyServer, count: int) -> dict[str, Any]:
    """Send at least `count` prompts to a running server.

    Args:
        server: with the mini model and its experts.
        count: prompts.

    Returns:
        Counts by kind, and what went wrong; the server's memory after `STEADY_AFTER` prompts and at the end,
        in MiB; seconds of a block of both loaders and their ratio, by the clock and by the processor.
    """
    place = server.models_dir / "loras" / SAME
    link_file(server.models_dir / "safety_experts" / SHOCKING, place)
    try:
        return _figures(*_rounds(server, count))
    finally:
        place.unlink()


def _rounds(server: ComfyServer, count: int) -> tuple[list[Ended], list[float], dict[str, list]]:
    """Return all prompts, MiB after each round, and the seconds of each block by clock and processor."""
    ended: list[Ended] = []
    memory: list[float] = []
    blocks: dict[str, list[tuple[float, float]]] = {OURS: [], STOCK: []}
    while len(ended) < count:
        turn = len(memory)  # the clients never ask for the same at once, which the host's cache would answer
        ended += _by_clients(
            server, [(kind, (turn + client) % SEEDS) for kind in MIXED for client in range(CLIENTS)]
        )
        for kind in (OURS, STOCK) if turn % 2 else (STOCK, OURS):  # neither is always first
            _, busy = _process(server)
            block = _by_clients(server, [(kind, (turn + number) % SEEDS) for number in range(BLOCK)])
            took = max(one.end for one in block) - min(one.begin for one in block)
            blocks[kind].append((took, _process(server)[1] - busy))
            ended += block
        memory.append(_process(server)[0])
        _post(server, "/history", {"clear": True})  # the server keeps 10,000 prompts, whoever sends them
        for picture in (server.base_dir / "temp").rglob("*.png"):
            picture.unlink()
    return ended, memory, blocks


def _by_clients(server: ComfyServer, wanted: list[tuple[str, int]]) -> list[Ended]:
    """Let every client send its share, one prompt after the other; an exception of a client ends the run."""
    shares = [wanted[client::CLIENTS] for client in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as threads:
        return [
            one for share in threads.map(lambda share: _one_client(server, share), shares) for one in share
        ]


def _one_client(server: ComfyServer, share: list[tuple[str, int]]) -> list[Ended]:
    return [_sent(server, kind, seed) for kind, seed in share]


def _sent(server: ComfyServer, kind: str, seed: int) -> Ended:
    graph = _graph(kind, seed)
    name = server.post(graph)
    if kind == CANCEL:
        _wait(lambda: server.history(name) or name in str(server.queue()["queue_running"]))
        _post(server, "/interrupt", {"prompt_id": name})
    _wait(lambda: server.history(name))
    entry = server.history(name)
    stamps = {event: data for event, data in entry["status"]["messages"]}
    begin = stamps["execution_start"]["timestamp"] / 1000
    end = max(data.get("timestamp", 0) for data in stamps.values()) / 1000
    if "execution_interrupted" in stamps:
        return Ended(kind, seed, "cancelled", "", begin, end)
    if "execution_error" in stamps:
        return Ended(kind, seed, stamps["execution_error"]["exception_message"], "", begin, end)
    return Ended(kind, seed, "success", _result(server, entry), begin, end)


def _graph(kind: str, seed: int) -> dict:
    """Return a prompt that draws one picture, with few steps, so that the work around it counts."""
    graph = with_model()
    if kind == STOCK:
        graph["model"] = node("LoraLoaderModelOnly", model=("ckpt", 0), lora_name=SAME, strength_model=1.0)
    elif kind in (OURS, "judge", CANCEL):
        graph["model"] = node(
            "AlignGuardLoadSafetyExpert", model=("ckpt", 0), expert_name=SHOCKING, strength=1.0
        )
    else:
        add_expert(graph)
        expert = ("expert", 1)
        if kind == "merge":
            add_expert(graph, "other", HATE)
            graph["merge"] = node(
                "AlignGuardMergeSafetyExperts", expert_1=expert, expert_2=("other", 1), method="concat"
            )
            expert = ("merge", 0)
        graph["model"] = node(
            "AlignGuardApplySafetyExpert",
            model=("ckpt", 0),
            expert=expert,
            strength=0.7,
            start_percent=0.0,
            end_percent=1.0,
        )
    return _drawn(graph, kind, seed)


def _drawn(graph: dict, kind: str, seed: int) -> dict:
    graph["sample"] = node(
        "KSampler",
        model=("model", 0),
        positive=("pos", 0),
        negative=("neg", 0),
        latent_image=("latent", 0),
        seed=seed,
        steps=LONG_STEPS if kind == CANCEL else 2,
        cfg=1.0,
        sampler_name="euler",
        scheduler="normal",
        denoise=1.0,
    )
    graph["picture"] = node("VAEDecode", samples=("sample", 0), vae=("ckpt", 2))
    if kind == "judge":
        graph["judge"] = node("AlignGuardSafetyJudge", images=("picture", 0), judge="mini")
    graph["shown"] = node("PreviewImage", images=("picture", 0))
    return graph


def _result(server: ComfyServer, entry: dict) -> str:
    """Return a hash of the picture that a prompt drew and of what the judge said."""
    outputs = entry["outputs"]
    (file,) = server.saved_files({"outputs": {"shown": outputs["shown"]}})
    said = outputs.get("judge", {}).get("text", [])
    with Image.open(file) as picture:  # its pixels, because the file may also hold the graph
        pixels = picture.convert("RGB").tobytes()
    return hashlib.sha256(pixels + json.dumps(said).encode()).hexdigest()[:16]


def _wait(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise ComfyError(f"a prompt did not end within {LIMIT_S} s")
        time.sleep(0.02)


def _post(server: ComfyServer, path: str, value: dict) -> None:
    request = urllib.request.Request(
        server.url + path, json.dumps(value).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60):
        pass


def _process(server: ComfyServer) -> tuple[float, float]:
    """Return the server's memory in MiB and its seconds of the processor; NaN where no system tells."""
    facts = Path(f"/proc/{server.process_id}")
    if not facts.is_dir():
        return math.nan, math.nan
    resident = int((facts / "status").read_text().partition("VmRSS:")[2].split()[0]) / 1024
    fields = (facts / "stat").read_text().rpartition(")")[2].split()
    return resident, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system time


def _figures(ended: list[Ended], memory: list[float], blocks: dict) -> dict[str, Any]:
    results = defaultdict(set)
    for one in ended:
        if one.status == "success":
            results["picture" if one.kind in (OURS, STOCK) else one.kind, one.seed].add(one.result)
    expected = {CANCEL: "cancelled"}
    wrong = [one for one in ended if one.status != expected.get(one.kind, "success")]
    rounds = len(memory)
    first = min(STEADY_AFTER * rounds // len(ended), rounds - 1)
    last = max(1, rounds // 10)
    ratio = [
        statistics.median(ours[at] / stock[at] for ours, stock in zip(*blocks.values(), strict=True))
        for at in (0, 1)
    ]
    return {
        "prompts": {kind: sum(one.kind == kind for one in ended) for kind in MIXED},
        "other ends than expected": sorted({f"{one.kind}: {one.status}" for one in wrong}),
        "prompts with more than one result": sum(len(found) > 1 for found in results.values()),
        "MiB after the first prompts": round(statistics.median(memory[first : first + last]), 1),
        "MiB at the end": round(statistics.median(memory[-last:]), 1),
        "seconds of a block, ours": round(statistics.median(took for took, _ in blocks[OURS]), 3),
        "seconds of a block, stock": round(statistics.median(took for took, _ in blocks[STOCK]), 3),
        "ratio by the clock": round(ratio[0], 3),
        "ratio by the processor": round(ratio[1], 3),
    }
