"""Run an API graph on a ComfyUI server, with nothing but Python's standard library.

    python clients/headless.py workflows/api/alignguard_extract_expert.json --out results
    python clients/headless.py graph.json --set 4.rank=16 --set "8.text=a white skull"

Progress goes to stderr and one JSON object to stdout: the prompt's id, its status (`success`, `refused`,
`error`, `interrupted`), what each node said, the files fetched, and, if something failed, `errors` with the
node and its sentence. Ctrl-C cancels this prompt and no other. The exit code is 0 for success, 1 if a node
failed, 2 if the prompt was refused, 3 if the server does not answer, and 130 if it was cancelled.
"""

import argparse
import base64
import hashlib
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXIT = {"success": 0, "error": 1, "refused": 2, "interrupted": 130}
NO_ANSWER = 3
ENDINGS = ("execution_success", "execution_error", "execution_interrupted")
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
CONTINUATION, TEXT, CLOSE, PING, PONG = 0x0, 0x1, 0x8, 0x9, 0xA
SAVED = "saved as "  # how nodes of this pack name an expert below ComfyUI's output folder


class WebSocket:
    """The part of RFC 6455 that reading messages takes; a ping is answered, nothing else is sent."""

    def __init__(self, url: str) -> None:
        """Connect; raises OSError if the server does not speak the protocol."""
        place = urllib.parse.urlsplit(url)
        self._socket = socket.create_connection((place.hostname, place.port or 80), timeout=60)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {place.path}?{place.query} HTTP/1.1\r\nHost: {place.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._file = self._socket.makefile("rb")
        head = iter(lambda: self._file.readline().decode("latin-1").strip(), "")
        status, fields = next(head, ""), dict(line.lower().split(": ", 1) for line in head if ": " in line)
        wanted = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        if " 101 " not in f"{status} " or fields.get("sec-websocket-accept") != wanted.lower():
            raise OSError(f"{url} does not answer as a websocket: {status or 'nothing came'}")
        self._socket.settimeout(None)  # a training may be silent for minutes

    def texts(self) -> Iterator[str]:
        """Yield text messages until the server closes; binary ones, which are previews, are skipped."""
        kind, parts = TEXT, []
        while True:
            head = self._read(2)
            is_last, code, length = head[0] & 0x80, head[0] & 0x0F, head[1] & 0x7F
            if length >= 126:
                length = int.from_bytes(self._read(2 if length == 126 else 8), "big")
            payload = self._read(length)
            if code == CLOSE:
                return
            if code == PING:
                self._pong(payload)
            if code & 0x8:  # a control frame may stand between the parts of a message
                continue
            kind, parts = (kind, [*parts, payload]) if code == CONTINUATION else (code, [payload])
            if is_last and kind == TEXT:
                yield b"".join(parts).decode()

    def _read(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise OSError("the server closed the connection")
        return data

    def _pong(self, payload: bytes) -> None:
        mask = os.urandom(4)  # what a client sends must be masked; a ping is at most 125 bytes long
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self._socket.sendall(bytes([0x80 | PONG, 0x80 | len(payload)]) + mask + masked)


class Server:
    """A ComfyUI server, such as http://127.0.0.1:8188."""

    def __init__(self, url: str) -> None:
        self.url, self.client = url.rstrip("/"), uuid.uuid4().hex

    def call(self, path: str, value: Any = None) -> Any:
        """GET a path, or POST a value as JSON to it, and return the JSON of the answer, if it has any."""
        body = None if value is None else json.dumps(value).encode()
        data = self.fetch(path, body)
        return json.loads(data) if data else None

    def fetch(self, path: str, body: bytes | None = None) -> bytes:
        """Return the bytes of an answer."""
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # as the websocket goes
        with direct.open(request, timeout=60) as answer:
            return answer.read()

    def messages(self) -> Iterator[dict[str, Any]]:
        """Connect now; the iterator yields the messages for this client."""
        link = WebSocket(f"{self.url.replace('http', 'ws', 1)}/ws?clientId={self.client}")
        return map(json.loads, link.texts())

    def cancel(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, or stop it if it runs; other prompts are left alone."""
        self.call("/queue", {"delete": [prompt_id]})
        self.call("/interrupt", {"prompt_id": prompt_id})


def run(server: Server, graph: dict[str, Any], out: Path | None) -> dict[str, Any]:
    """Submit a graph, follow it and fetch its files; return what is printed."""
    messages = server.messages()  # before the prompt, so that none is missed
    try:
        prompt_id = server.call("/prompt", {"prompt": graph, "client_id": server.client})["prompt_id"]
    except urllib.error.HTTPError as error:
        return {"status": "refused", "errors": refusals(json.loads(error.read()))}
    try:
        sys.stderr.write(f"queued as {prompt_id}\n")
        ending = follow(messages, prompt_id, graph)
    except KeyboardInterrupt:
        server.cancel(prompt_id)
        ending = {"type": "execution_interrupted", "data": {}}
    result = {"prompt_id": prompt_id, "status": ending["type"].removeprefix("execution_"), "errors": []}
    data = ending["data"]
    if result["status"] != "success":
        sentence = data.get("exception_message", "cancelled").strip()
        place = {"node": data.get("node_id"), "class_type": data.get("node_type")}
        result["errors"] = [place | {"sentence": sentence}]
    outputs = finished(server, prompt_id).get("outputs", {})
    result["texts"] = {node: shown["text"] for node, shown in outputs.items() if shown.get("text")}
    result["files"] = [fetched(server, file, out) for file in files_of(outputs)] if out else []
    return result


def follow(messages: Iterator[dict[str, Any]], prompt_id: str, graph: dict[str, Any]) -> dict[str, Any]:
    """Print the progress of a prompt and return its last message."""
    for message in messages:
        kind, data = message["type"], message["data"]
        if data.get("prompt_id") != prompt_id:
            continue
        if kind in ENDINGS:
            return message
        name = graph.get(str(data.get("node")), {}).get("class_type")
        if kind == "executing" and name:
            sys.stderr.write(f"{name}\n")
        elif kind == "progress" and name:
            sys.stderr.write(f"  {name}: {data['value']} of {data['max']}\n")
    raise OSError("the server closed the connection before the prompt ended")


def finished(server: Server, prompt_id: str, limit_s: float = 30) -> dict[str, Any]:
    """Return the history entry of a prompt, which the server writes just after its last message."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if entry := server.call(f"/history/{prompt_id}").get(prompt_id):
            return entry
        time.sleep(0.1)
    return {}  # a prompt that was cancelled before it began has none


def refusals(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row per refused node; node is None if the graph as a whole was refused."""
    rows = [
        {"node": node, "class_type": report["class_type"], "sentence": error["details"] or error["message"]}
        for node, report in (answer.get("node_errors") or {}).items()
        for error in report["errors"]
    ]
    whole = answer["error"]
    text = " ".join(part for part in (whole["message"], whole.get("details")) if part)
    return rows or [{"node": None, "class_type": None, "sentence": text}]


def files_of(outputs: dict[str, Any]) -> list[dict[str, str]]:
    """Return the files that nodes saved: those in lists of files, and experts, which a text names."""
    shown = [value for output in outputs.values() for values in output.values() for value in values]
    files = [value for value in shown if isinstance(value, dict) and "filename" in value]
    for line in (line for text in shown if isinstance(text, str) for line in text.splitlines()):
        if line.startswith(SAVED):
            folder, _, name = line.removeprefix(SAVED).rpartition("/")
            files.append({"filename": name, "subfolder": folder, "type": "output"})
    return files


def fetched(server: Server, file: dict[str, str], out: Path) -> str:
    """Download a file into a folder, under a name that is free, and return its path."""
    data = server.fetch(f"/view?{urllib.parse.urlencode(file)}")
    out.mkdir(parents=True, exist_ok=True)
    name = Path(Path(file["filename"].replace("\\", "/")).name)  # a name from outside leads nowhere else
    path, number = out / name, 1
    while path.exists():
        path, number = out / f"{name.stem}_{number}{name.suffix}", number + 1
    path.write_bytes(data)
    return str(path)


def changed(graph: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """Set inputs of a graph, each given as NODE.INPUT=VALUE; VALUE is JSON, or else a text.

    Raises:
        ValueError: naming the setting that has another form, or whose node is not in the graph.
    """
    for setting in settings:
        place, equals, text = setting.partition("=")
        node, dot, name = place.partition(".")
        if not (equals and dot and node in graph):
            raise ValueError(
                f"--set takes NODE.INPUT=VALUE with a node of {', '.join(graph)}, got {setting!r}."
            )
        try:
            graph[node]["inputs"][name] = json.loads(text)
        except json.JSONDecodeError:
            graph[node]["inputs"][name] = text
    return graph


def main() -> int:
    """Run the graph that the command line names, and print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("graph", type=Path, help="graph in API format, such as those in workflows/api")
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="address of ComfyUI")
    parser.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="set an input")
    parser.add_argument("--out", type=Path, help="folder for the files; without it none is fetched")
    arguments = parser.parse_args()
    try:
        graph = changed(json.loads(arguments.graph.read_text(encoding="utf-8")), arguments.set)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    try:
        result = run(Server(arguments.server), graph, arguments.out)
    except OSError as error:
        sentence = f"{arguments.server} does not answer as a ComfyUI ({error}). Start it, or name another."
        result = {"status": "no answer", "errors": [{"node": None, "class_type": None, "sentence": sentence}]}
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return EXIT.get(result["status"], NO_ANSWER)


if __name__ == "__main__":
    sys.exit(main())
