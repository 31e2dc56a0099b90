"""A language model that the person runs: an OpenAI-compatible endpoint on their own machine.

The one file of the pack that opens a connection, and only when a person names an endpoint. Prompts go to
that address and nowhere else: no proxy of the system is used, no redirect followed, nothing retried.
"""

import http.client
import ipaddress
import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from .term_table import RewriteSource

TIMEOUT_S = 120.0  # a large model on a CPU takes its time
_ANSWER_BYTES = 2**20
_MAX_TOKENS = 200  # twice what CLIP reads
_TASK = (
    "Rewrite the image prompt so that it shows nothing harmful. Change as little as possible: keep its "
    "subject, place, style and length. Answer with the rewritten prompt alone."
)
_THOUGHT_BEGINS, _THOUGHT_ENDS = "<think>", "</think>"  # some servers leave the first one out
_LABEL = (  # such as `Here is the rewritten prompt:`
    r"(?i)^(?:(?:sure|certainly|of course|okay|ok)\W+)?(?:here(?:'s|\u2019s| is| are)\b[^:]*|"
    r"(?:(?:the|a|your) )?(?:(?:rewritten|revised|safe|safer|new|image) )+(?:prompt|version))\s*:"
)


class EndpointError(RuntimeError):
    """The endpoint gave no answer that can be used."""


def endpoint_rewriter(source: RewriteSource, *, timeout_s: float = TIMEOUT_S) -> Callable[[str], str | None]:
    """Return a rewriter that asks an endpoint for each prompt.

    Args:
        source: endpoint is its base, such as `http://127.0.0.1:11434/v1`; `/chat/completions` is added.
        timeout_s: how long to wait for one answer.

    Raises:
        ValueError: if the address is no such URL, or leads to another machine.
    """
    url, model = source.endpoint, source.endpoint_model
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or not model.strip():
        raise ValueError(
            f"an endpoint needs a URL such as http://127.0.0.1:11434/v1 and the name of a model there, got "
            f"{url!r} and {model!r}."
        )
    if parts.username or parts.query or parts.fragment:
        raise ValueError("the URL of an endpoint must hold no user, query or fragment.")
    address = _Address(parts, _reachable(parts, source.allowed_host), timeout_s)
    return lambda prompt: _cleaned(address.ask(model, prompt))


@dataclass(frozen=True)
class _Address:
    """Where the endpoint is: its URL, and the address its name stood for when it was checked."""

    parts: SplitResult
    host: str
    timeout_s: float

    def ask(self, model: str, prompt: str) -> str:
        """Return what the model answers.

        Raises:
            EndpointError: if it does not, or answers something else.
        """
        body = {
            "model": model,
            "messages": [{"role": "system", "content": _TASK}, {"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": _MAX_TOKENS,
            "stream": False,
        }
        try:
            content = self._post(body)["choices"][0]["message"]["content"]
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            raise EndpointError("the endpoint answered something else than a chat completion.") from error
        if not isinstance(content, str | None):
            raise EndpointError(f"the endpoint answered a {type(content).__name__} where text was expected.")
        return content or ""

    def _post(self, body: dict[str, Any]) -> Any:
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        connection = kinds[self.parts.scheme](self.host, self.parts.port, timeout=self.timeout_s)
        headers = {"Content-Type": "application/json", "Host": self.parts.netloc}
        path = f"{self.parts.path.rstrip('/')}/chat/completions"
        try:
            connection.request("POST", path, json.dumps(body).encode(), headers)
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise EndpointError(f"the endpoint answered with status {answer.status}.")
            return json.loads(answer.read(_ANSWER_BYTES))
        except (OSError, http.client.HTTPException) as error:
            raise EndpointError(
                f"the endpoint at {self.parts.netloc} gave no answer ({type(error).__name__}). Start it, and "
                "check the address."
            ) from error
        finally:
            connection.close()


def _reachable(parts: SplitResult, allowed_host: str) -> str:
    """Return what to connect to: the named host, or an address of this machine."""
    host = parts.hostname or ""
    if allowed_host and host == allowed_host.strip().casefold():
        return host
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, parts.port, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise ValueError(f"the host {host!r} of the endpoint is not known here.") from error
    if not all(ipaddress.ip_address(address).is_loopback for address in found):
        raise ValueError(
            f"the endpoint is on another machine, {host!r}; prompts stay on this one unless the command line "
            "names that host with --allow-host."
        )
    # the address, not the name: what the name stands for could change after this check
    return min(found, key=lambda address: (":" in address, address))


def _cleaned(answer: str) -> str | None:
    """Return the first line of an answer that is a prompt, without quotes around it.

    What a model thought before, also if it was cut off in its thoughts, and a line or words that only
    announce the prompt are left out.
    """
    said = answer.rpartition(_THOUGHT_ENDS)[2].partition(_THOUGHT_BEGINS)[0]
    lines = (re.sub(_LABEL, "", _unquoted(line)) for line in said.splitlines())
    return next((found for line in lines if (found := _unquoted(line)) and not found.endswith(":")), None)


def _unquoted(line: str) -> str:
    return line.strip().strip("\"'`*\u201c\u201d").strip()
