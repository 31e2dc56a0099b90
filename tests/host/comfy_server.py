"""A real ComfyUI server with this pack, controlled over HTTP with the standard library only."""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from base_folder import PAIRS, prepare_base
from host_source import find_host
from virtual_environment import ROOT, clean_environment, venv_python

START_LIMIT_S = 600  # for a busy machine; a dead server is noticed at once
STOP_LIMIT_S = 10
ANSWER_LIMIT_S = 120
TAIL_LINES = 25


class ComfyError(RuntimeError):
    """The server refused a prompt, a node failed, or the server ended; the message says why."""


def host_folder() -> Path:
    """Return the ComfyUI to run.

    Raises:
        ComfyError: if there is none.
    """
    host = find_host()
    if host is None:
        raise ComfyError("no ComfyUI found. Run `python dev.py test` to download one, or set COMFYUI_PATH.")
    return host


def wait_for(condition: Callable[[], bool], limit_s: float = 120) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: if it does not hold within the limit, in seconds.
    """
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not hold within {limit_s:g} s"
        time.sleep(0.05)


def server_command(base: Path, port: int, extra: Sequence[str] = ()) -> list[str]:
    """Return the command that runs ComfyUI on a base directory with its online features off."""
    python = venv_python()  # has the host's packages installed
    database = (base / "user" / "comfyui.db").as_posix()  # the default lies inside the user's ComfyUI
    return [
        str(python if python.exists() else sys.executable),
        str(Path(__file__).with_name("host_process.py")),
        str(host_folder()),
        *("--base-directory", str(base), "--port", str(port), "--database-url", f"sqlite:///{database}"),
        *("--disable-auto-launch", "--disable-api-nodes", *extra),
    ]


def server_environment() -> dict[str, str]:
    """Return the server's environment: no foreign packages, no hub, no bytecode in a user's host."""
    environment = clean_environment() | {
        "HF_HUB_OFFLINE": "1",
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if not host_folder().is_relative_to(ROOT):
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return environment


def free_port() -> int:
    """Return a free TCP port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ComfyServer:
    """ComfyUI on the CPU with its own base directory; use it as a context manager.

    Args:
        base_dir: base directory, prepared on construction; `server.log` in it is the server's log.
        extra: further arguments for ComfyUI.
    """

    def __init__(self, base_dir: Path, *, extra: Sequence[str] = ()):
        """Prepare the base directory; the server starts with `start` or on entering the context."""
        self.base_dir = Path(base_dir).resolve()
        self.extra = ("--cpu", "--use-pytorch-cross-attention", *extra)  # the default for CPUs is slower
        self.models_dir, self.input_dir, self.output_dir = (
            self.base_dir / name for name in ("models", "input", "output")
        )
        self.pairs_dir = self.base_dir / PAIRS
        self.log_file = self.base_dir / "server.log"
        self.url, self.process_id = "", 0  # both known once it starts
        self._process = None
        prepare_base(self.base_dir)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            ComfyError: if it ends or does not answer in time; the message quotes the end of the log.
        """
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                server_command(self.base_dir, port, self.extra),
                stdin=subprocess.PIPE,  # host_process.py exits when it closes
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.base_dir,
                env=server_environment(),
                start_new_session=os.name != "nt",
            )
        self.process_id = self._process.pid
        atexit.register(self.stop)
        deadline = time.monotonic() + START_LIMIT_S
        while not self._answers():
            self._check_alive()
            if time.monotonic() > deadline:
                self.stop()
                raise ComfyError(f"ComfyUI did not answer within {START_LIMIT_S} s:\n{self.log_tail()}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop the server and all its child processes."""
        process, self._process = self._process, None
        atexit.unregister(self.stop)
        if process is None or process.poll() is not None:
            return
        _end_tree(process, force=False)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            _end_tree(process, force=True)
            process.wait()
        process.stdin.close()

    def post(self, prompt: dict, client_id: str = "") -> str:
        """Queue an API prompt and return its id.

        Args:
            prompt: nodes by id, as the API takes them.
            client_id: id of the client that receives progress messages; a new one by default.

        Raises:
            ComfyError: if the server refuses it; the message lists the errors of every node.
        """
        return self._json("/prompt", {"prompt": prompt, "client_id": client_id or uuid.uuid4().hex})[
            "prompt_id"
        ]

    def run(self, prompt: dict, timeout_s: float = 300) -> dict:
        """Queue an API prompt, wait for its end and return its history entry.

        Raises:
            ComfyError: if it is refused, a node fails, it is interrupted, or time runs out.
        """
        return self.wait(self.post(prompt), timeout_s)

    def wait(self, prompt_id: str, timeout_s: float = 300) -> dict:
        """Wait for the end of a queued prompt and return its history entry.

        Raises:
            ComfyError: if a node fails, it is interrupted, or time runs out.
        """
        deadline = time.monotonic() + timeout_s
        while not (entry := self.history(prompt_id)):
            self._check_alive()
            if time.monotonic() > deadline:
                self.interrupt()
                raise ComfyError(f"the prompt did not end within {timeout_s:g} s:\n{self.log_tail()}")
            time.sleep(0.1)
        if entry["status"]["status_str"] != "success":
            raise ComfyError(_failure(entry))
        return entry

    def history(self, prompt_id: str) -> dict:
        """Return the history entry of a prompt, or {} while it is queued or running."""
        return self._json(f"/history/{prompt_id}").get(prompt_id, {})

    def queue(self) -> dict:
        """Return the running and the pending prompts."""
        return self._json("/queue")

    def object_info(self, node: str = "") -> dict:
        """Return the server's information on one node class, or on all."""
        return self._json(f"/object_info/{urllib.parse.quote(node)}" if node else "/object_info")

    def interrupt(self) -> None:
        """Cancel the running prompt."""
        self._request("/interrupt", b"{}", "application/json")

    def upload(self, source: Path, *, name: str = "", subfolder: str = "", overwrite: bool = True) -> dict:
        """Upload a file to the server's input folder and return its name, subfolder and type."""
        boundary = uuid.uuid4().hex
        fields = {"subfolder": subfolder, "overwrite": str(overwrite).lower(), "type": "input"}
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
            for key, value in fields.items()
        ]
        disposition = f'form-data; name="image"; filename="{name or source.name}"'
        head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
        body = b"".join([*parts, head, source.read_bytes(), f"\r\n--{boundary}--\r\n".encode()])
        return json.loads(self._request("/upload/image", body, f"multipart/form-data; boundary={boundary}"))

    def saved_files(self, entry: dict, kind: str = "images") -> list[Path]:
        """Return the files saved by the output nodes of a history entry, in the order of the nodes."""
        files = [file for output in entry["outputs"].values() for file in output.get(kind, ())]
        return [self.base_dir / file["type"] / file["subfolder"] / file["filename"] for file in files]

    def log_text(self) -> str:
        """Return everything the server has printed."""
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    def log_tail(self) -> str:
        """Return the last lines that the server printed."""
        return "\n".join(self.log_text().splitlines()[-TAIL_LINES:])

    def _answers(self) -> bool:
        try:
            self._request("/system_stats")
        except ComfyError:
            return False
        return True

    def _check_alive(self) -> None:
        if self._process is None or self._process.poll() is not None:
            raise ComfyError(f"ComfyUI is not running any more. The end of its log:\n{self.log_tail()}")

    def _json(self, path: str, value: dict | None = None) -> dict:
        body = None if value is None else json.dumps(value).encode()
        return json.loads(self._request(path, body, "application/json"))

    def _request(self, path: str, body: bytes | None = None, content_type: str = "") -> bytes:
        request = urllib.request.Request(self.url + path, data=body, headers={"Content-Type": content_type})
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                request, timeout=ANSWER_LIMIT_S
            ) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise ComfyError(_refusal(path, error)) from error
        except OSError as error:
            self._check_alive()
            raise ComfyError(f"ComfyUI does not answer ({error}). Its log:\n{self.log_tail()}") from error


def _end_tree(process: subprocess.Popen, *, force: bool) -> None:
    if os.name == "nt":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True)
        return
    try:
        os.killpg(process.pid, signal.SIGKILL if force else signal.SIGTERM)
    except ProcessLookupError:
        pass


def _refusal(path: str, error: urllib.error.HTTPError) -> str:
    text = error.read().decode("utf-8", errors="replace")
    try:
        answer = json.loads(text)
    except ValueError:
        return f"{path}: HTTP {error.code}: {text}"
    messages = [f"{path}: {answer['error']['message']} {answer['error'].get('details', '')}".strip()]
    for node, report in (answer.get("node_errors") or {}).items():
        texts = "; ".join(f"{error['message']}: {error['details']}" for error in report["errors"])
        messages.append(f"node {node} ({report['class_type']}): {texts}")
    return "\n".join(messages)


def _failure(entry: dict) -> str:
    for event, data in entry["status"]["messages"]:
        if event == "execution_error":
            return f"node {data['node_id']} ({data['node_type']}): {data['exception_message'].strip()}"
        if event == "execution_interrupted":
            return f"interrupted in node {data['node_id']} ({data['node_type']})"
    return f"the prompt ended with {entry['status']['status_str']}"
