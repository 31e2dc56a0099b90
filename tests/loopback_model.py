"""A language model behind an OpenAI-compatible endpoint on this machine, played by a function of the test."""

import base64
import io
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from PIL import Image


@contextmanager
def loopback_model(answer):
    """Serve a model on 127.0.0.1; yields the server with `url` and `seen`, the bodies of all requests.

    Args:
        answer: f(messages) -> text of the answer, or bytes that are sent as the whole response.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.seen.append(body)
            text = self.server.answer(body["messages"])
            raw = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text if isinstance(text, bytes) else raw)

        def log_message(self, *_):
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    running.seen, running.answer = [], answer
    running.url = f"http://127.0.0.1:{running.server_port}/v1"
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield running
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def pictures_in(messages):
    """Yield the pictures of the last message."""
    for part in messages[-1]["content"]:
        if part["type"] == "image_url":
            raw = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            yield Image.open(io.BytesIO(raw)).convert("RGB")
