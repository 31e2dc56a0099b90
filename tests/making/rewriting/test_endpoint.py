"""The endpoint: a server on this machine is asked, another machine is refused before anything is sent."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from training.making.rewriting import REWRITERS, EndpointError, RewriteSource


@pytest.fixture
def server():
    """A chat endpoint on 127.0.0.1 that answers with what `server.answer` makes of a prompt."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.seen.append((self.path, body))
            status, raw = self.server.answer(body["messages"][-1]["content"])
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_):
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    running.seen = []
    running.answer = lambda prompt: (200, chat(prompt.replace("skull", "flower")))
    running.url = f"http://127.0.0.1:{running.server_port}/v1"
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def chat(text) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def ask(url, prompt="a skull", **source):
    return REWRITERS["endpoint"](RewriteSource(endpoint=url, endpoint_model="small", **source))(prompt)


def test_a_prompt_is_asked_for_in_the_form_of_openai(server):
    assert ask(server.url + "/") == "a flower"
    ((path, body),) = server.seen
    assert path == "/v1/chat/completions"
    assert (body["model"], body["temperature"], body["stream"]) == ("small", 0, False)
    assert body["messages"][-1] == {"role": "user", "content": "a skull"}


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_every_name_of_this_machine_is_allowed(server, name):
    assert ask(server.url.replace("127.0.0.1", name)) == "a flower"


def test_an_answer_is_its_first_line_without_quotes(server):
    for answer, prompt in (
        ('\n "a rose" \nas you wished', "a rose"),
        ("\u201ca rose\u201d", "a rose"),
        ("Here is the rewritten prompt:\n\na rose", "a rose"),
        ('Sure! Here\'s a safer version: "a rose"', "a rose"),
        ("**Rewritten prompt:** a rose", "a rose"),
        ("<think>\na skull: no.\n</think>\n\na rose", "a rose"),
        ("a skull: no.</think>a rose", "a rose"),
        ("<think>\nwell, a skull", None),
        ("a rose: a study in red", "a rose: a study in red"),
        (None, None),
        ("\n", None),
    ):
        server.answer = lambda _, answer=answer: (200, chat(answer))
        assert ask(server.url) == prompt


@pytest.mark.parametrize(
    "answer",
    [
        *((500, b""), (302, b""), (404, b"{}"), (200, b"no json"), (200, b"{}"), (200, b'{"choices": []}')),
        (200, b"[" * 200_000),
        (200, b'{"choices": [{"message": {"content": [{"type": "text", "text": "a rose"}]}}]}'),
    ],
)
def test_any_other_answer_is_an_error_without_the_prompt_in_it(server, answer):
    server.answer = lambda _: answer
    with pytest.raises(EndpointError, match="the endpoint answered") as failed:
        ask(server.url)
    assert "skull" not in str(failed.value)
    assert len(server.seen) == 1  # nothing is retried, no redirect followed


def test_an_endpoint_that_is_not_running_is_named():
    with pytest.raises(EndpointError, match=r"127\.0\.0\.1:1 gave no answer.*Start it"):
        ask("http://127.0.0.1:1/v1")


def test_a_proxy_of_the_system_is_not_used(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert ask(server.url) == "a flower"


@pytest.mark.parametrize("host", ["192.0.2.7", "8.8.8.8", "[2001:db8::1]", "0.0.0.0", "169.254.169.254"])
def test_another_machine_is_refused_before_anything_is_sent(host):
    with pytest.raises(ValueError, match="the endpoint is on another machine"):
        ask(f"http://{host}:8080/v1")
    with pytest.raises(ValueError, match="the endpoint is on another machine"):
        ask(f"http://{host}:8080/v1", allowed_host="other.example")


def test_a_host_named_by_hand_is_allowed():
    source = RewriteSource(endpoint="http://192.0.2.7:8080/v1", endpoint_model="m", allowed_host="192.0.2.7")
    assert callable(REWRITERS["endpoint"](source))  # not called, because it is another machine


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8080", "ftp://127.0.0.1/v1", "file:///etc/hostname", "http://", "http://h:x/v1"]
)
def test_an_invalid_url_is_refused(url):
    with pytest.raises(ValueError, match="endpoint|URL|port|Port"):
        ask(url)
    with pytest.raises(ValueError, match="name of a model"):
        REWRITERS["endpoint"](RewriteSource(endpoint="http://127.0.0.1:8080/v1"))


def test_a_url_with_a_user_or_a_query_is_refused():
    for url in ("http://me:pw@127.0.0.1/v1", "http://127.0.0.1/v1?x=1", "http://127.0.0.1@192.0.2.7/v1"):
        with pytest.raises(ValueError, match="must not contain a user"):
            ask(url)
