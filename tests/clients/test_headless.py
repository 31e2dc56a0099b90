"""The example clients read a websocket as RFC 6455 says, and report what a server answers.

The server here only repeats what ComfyUI sends; `tests/host/test_headless_http.py` asks a real one.
"""

import base64
import hashlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "clients" / "headless.py"
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@pytest.fixture(scope="module")
def client():
    spec = importlib.util.spec_from_file_location("headless", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def serve():
    """Return a function that serves one websocket: it sends bytes, and gives the url and what came back."""
    listener = socket.create_server(("127.0.0.1", 0))
    received = []

    def start(frames: bytes, accept: str | None = None) -> tuple[str, list[bytes]]:
        def answer():
            link, _ = listener.accept()
            with link:
                request = link.recv(4096).decode()
                key = next(
                    line.split(": ")[1]
                    for line in request.splitlines()
                    if line.startswith("Sec-WebSocket-Key")
                )
                sha = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
                head = f"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept or sha}\r\n\r\n"
                link.sendall(head.encode() + frames)
                link.shutdown(socket.SHUT_WR)
                while data := link.recv(4096):
                    received.append(data)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        return f"ws://127.0.0.1:{listener.getsockname()[1]}/ws?clientId=a", received, thread

    yield start
    listener.close()


def frame(kind: int, payload: bytes, *, last: bool = True) -> bytes:
    size = len(payload)
    if size < 126:
        length = bytes([size])
    elif size < 1 << 16:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    return bytes([0x80 * last | kind]) + length + payload


HELLO = bytes.fromhex("8105 48656c6c6f")  # RFC 6455, section 5.7: "Hello", unmasked
IN_PARTS = bytes.fromhex("0103 48656c 8002 6c6f")  # the same in two parts
CLOSE = frame(0x8, b"\x03\xe8")


@pytest.mark.parametrize(
    ("frames", "texts"),
    [
        (HELLO + CLOSE, ["Hello"]),
        (IN_PARTS + HELLO + CLOSE, ["Hello", "Hello"]),
        (IN_PARTS[:5] + frame(0x9, b"ping") + IN_PARTS[5:] + CLOSE, ["Hello"]),
        (frame(0x2, b"a picture") + HELLO + CLOSE, ["Hello"]),
        (frame(0x2, b"a pic", last=False) + frame(0x0, b"ture") + HELLO + CLOSE, ["Hello"]),
        (frame(0x1, b"x" * 70_000) + frame(0x1, b"y" * 300) + CLOSE, ["x" * 70_000, "y" * 300]),
    ],
)
def test_text_messages_are_read_whole_whatever_stands_between_their_parts(client, serve, frames, texts):
    url, _, _ = serve(frames)
    assert list(client.WebSocket(url).texts()) == texts


def test_a_ping_is_answered_masked_with_its_own_payload(client, serve):
    url, received, thread = serve(frame(0x9, b"still there?") + CLOSE)
    link = client.WebSocket(url)
    assert list(link.texts()) == []
    link._socket.shutdown(socket.SHUT_WR)
    thread.join(10)
    answer = b"".join(received)
    assert answer[:2] == bytes([0x8A, 0x80 | 12])
    mask, payload = answer[2:6], answer[6:]
    assert bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)) == b"still there?"


def test_a_server_of_another_protocol_is_refused(client, serve):
    url, _, _ = serve(b"", accept="bm9uc2Vuc2U=")
    with pytest.raises(OSError, match="does not answer as a websocket"):
        client.WebSocket(url)


def test_a_connection_that_breaks_off_is_an_error_and_no_ending(client, serve):
    url, _, _ = serve(HELLO + HELLO[:4])
    messages = client.WebSocket(url).texts()
    assert next(messages) == "Hello"
    with pytest.raises(OSError, match="closed the connection"):
        next(messages)


def test_a_setting_becomes_an_input_of_its_node(client):
    graph = {"4": {"inputs": {"rank": 32}}, "8": {"inputs": {}}}
    client.changed(graph, ["4.rank=16", "8.text=a kite, 2=two", "8.on=true"])
    assert graph == {"4": {"inputs": {"rank": 16}}, "8": {"inputs": {"text": "a kite, 2=two", "on": True}}}


@pytest.mark.parametrize("setting", ["5.rank=1", "rank=1", "4.rank"])
def test_a_setting_that_fits_no_node_is_refused(client, setting):
    with pytest.raises(ValueError, match="--set takes NODE.INPUT=VALUE with a node of 4, got"):
        client.changed({"4": {"inputs": {}}}, [setting])


def test_a_downloaded_file_stays_in_the_folder_and_replaces_nothing(client, tmp_path):
    server = client.Server("http://127.0.0.1:1")
    server.fetch = lambda path: path.encode()
    for name in ("../../a.png", "..\\a.png", "a.png"):
        client.fetched(server, {"filename": name}, tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.png", "a_1.png", "a_2.png"]
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


# the whole client


GRAPH = {
    "4": {"class_type": "KSampler", "inputs": {}},
    "5": {"class_type": "AlignGuardSaveSafetyExpert", "inputs": {}},
}
CLIENTS = {
    "python": lambda url, graph, out: [sys.executable, FILE, graph, "--server", url, "--out", out],
    "curl": lambda url, graph, out: ["sh", FILE.with_suffix(".sh"), graph, out],
}


class FakeComfy(ThreadingHTTPServer):
    """Answers one prompt, "abc", as ComfyUI does: with a refusal, or with messages and a history entry."""

    daemon_threads = True

    def __init__(self, refusal=None, messages=(), status="success", outputs=None):
        super().__init__(("127.0.0.1", 0), FakeHandler)
        self.refusal, self.messages, self.outputs = refusal, messages, outputs or {}
        self.status = {"status_str": status, "messages": [[m["type"], m["data"]] for m in messages]}
        self.submitted = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class FakeHandler(BaseHTTPRequestHandler):
    """Routes of `FakeComfy`."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path.startswith("/ws"):
            self.follow()
        elif self.path == "/history/abc":
            self.answer({"abc": {"outputs": self.server.outputs, "status": self.server.status}})
        else:
            self.answer(f"content of {self.path}")

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert (self.path, sent["prompt"]) == ("/prompt", GRAPH)
        assert sent["client_id"]  # without one, ComfyUI's history lacks what it took from its cache
        self.server.submitted.set()
        if self.server.refusal:
            self.answer(self.server.refusal, 400)
        else:
            self.answer({"prompt_id": "abc", "number": 1, "node_errors": {}})

    def answer(self, value, code=200):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def follow(self):
        sha = hashlib.sha1((self.headers["Sec-WebSocket-Key"] + GUID).encode()).digest()
        accept = base64.b64encode(sha).decode()
        head = f"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        self.wfile.write(head.encode())
        self.server.submitted.wait(30)
        for message in self.server.messages:
            self.wfile.write(frame(0x1, json.dumps(message).encode()))


def event(kind, **data):
    return {"type": kind, "data": {"prompt_id": "abc"} | data}


@pytest.fixture(params=CLIENTS)
def run_client(request, tmp_path):
    if request.param == "curl" and not all(map(shutil.which, ("sh", "curl", "jq"))):
        pytest.skip("curl or jq is not installed")
    graph = tmp_path / "graph.json"
    graph.write_text(json.dumps(GRAPH))

    def run(server):
        words = [str(word) for word in CLIENTS[request.param](server.url, graph, tmp_path / "out")]
        environment = os.environ | {"SERVER": server.url}
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment)
        server.shutdown()
        return done.returncode, json.loads(done.stdout)

    return run


def test_what_was_drawn_and_saved_is_fetched_and_texts_are_printed(run_client, tmp_path):
    outputs = {
        "4": {"images": [{"filename": "a.png", "subfolder": "", "type": "temp"}], "animated": [False]},
        "5": {"text": ['saved as loras/alignguard/e.safetensors\nand "more"']},
    }
    other = {"type": "execution_success", "data": {"prompt_id": "another"}}
    messages = [other, event("executing", node="4"), event("progress", node="4", value=1, max=2)]
    code, answer = run_client(FakeComfy(messages=[*messages, event("execution_success")], outputs=outputs))
    assert (code, answer["status"], answer["errors"]) == (0, "success", [])
    assert answer["texts"] == {"5": outputs["5"]["text"]}
    asked = {file.name: file.read_text() for file in (tmp_path / "out").iterdir()}
    assert asked.keys() == {"a.png", "e.safetensors"}
    for part in ("filename=e.safetensors", "subfolder=loras%2falignguard", "type=output"):
        assert part in asked["e.safetensors"].lower()
    assert "type=temp" in asked["a.png"]


def test_a_refused_graph_gives_a_row_per_wrong_input(run_client):
    wrong = {"type": "custom_validation_failed", "message": "Failed", "details": "there is no expert 'x'."}
    refusal = {
        "error": {
            "type": "prompt_outputs_failed_validation",
            "message": "Prompt outputs failed",
            "details": "",
        },
        "node_errors": {"5": {"errors": [wrong], "dependent_outputs": ["5"], "class_type": "AlignGuardLoad"}},
    }
    code, answer = run_client(FakeComfy(refusal=refusal))
    row = {"node": "5", "class_type": "AlignGuardLoad", "sentence": "there is no expert 'x'."}
    assert (code, answer) == (2, {"status": "refused", "errors": [row]})


def test_a_graph_that_is_refused_as_a_whole_gives_its_sentence(run_client):
    refusal = {"error": {"message": "Prompt has no outputs", "details": ""}, "node_errors": {}}
    code, answer = run_client(FakeComfy(refusal=refusal))
    assert code == 2
    assert answer["errors"] == [{"node": None, "class_type": None, "sentence": "Prompt has no outputs"}]


def test_a_node_that_fails_is_named_with_its_sentence(run_client):
    failure = event(
        "execution_error", node_id="5", node_type="AlignGuardX", exception_message="it is torn.\n"
    )
    code, answer = run_client(FakeComfy(messages=[failure], status="error"))
    assert (code, answer["status"]) == (1, "error")
    assert answer["errors"] == [{"node": "5", "class_type": "AlignGuardX", "sentence": "it is torn."}]
