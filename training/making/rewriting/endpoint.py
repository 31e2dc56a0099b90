"""Rewrite with a language model that the person runs: an OpenAI-compatible endpoint on their machine.

This is the only file of the pack that opens a connection, and only if a person names an endpoint. Prompts are
sent to that address only: no system proxy is used, no redirect is followed, nothing is retried.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from ...system.texts import text_lines

if TYPE_CHECKING:
    from . import RewriteSource

TIMEOUT_S = 120.0  # enough for a large model on a CPU
_ANSWER_BYTES = 2**20
_MAX_TOKENS = 200  # more than twice what CLIP reads
_TASK = (
    "Rewrite the image prompt so that it shows nothing harmful. Change as little as possible: keep its "
    "subject, place, style and length. Answer with the rewritten prompt alone."
)
_THOUGHT_START, _THOUGHT_END = "<think>", "</think>"  # some servers omit the first tag
_LABEL = (  # an announcement such as `Here is the rewritten prompt:`
    r"(?i)^(?:(?:sure|certainly|of course|okay|ok)\W+)?(?:here(?:'s|\u2019s| is| are)\b[^:]*|"
    r"(?:(?:the|a|your) )?(?:(?:rewritten|revised|safe|safer|new|image) )+(?:prompt|version))\s*:"
)


class EndpointError(RuntimeError):
    """Raised if the endpoint gives no usable answer."""


def endpoint_rewriter(source: RewriteSource, *, timeout_s: float = TIMEOUT_S) -> Callable[[str], str | None]:
    """Return a rewriter that sends each prompt to an endpoint.

    Args:
        source: its endpoint is a base URL such as `http://127.0.0.1:11434/v1`; `/chat/completions` is added.
        timeout_s: time limit for one answer, in seconds.

    Raises:
        ValueError: if the URL is invalid or points to another machine.
    """
    url, model = source.endpoint, source.endpoint_model
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or not model.strip():
        raise ValueError(
            f"an endpoint needs a URL such as http://127.0.0.1:11434/v1 and the name of a model, got {url!r} "
            f"and {model!r}."
        )
    if parts.username or parts.query or parts.fragment:
        raise ValueError("the URL of an endpoint must not contain a user, query or fragment. Remove it.")
    address = _Address(parts, _reachable(parts, source.allowed_host), timeout_s)
    return lambda prompt: _cleaned(address.ask(model, prompt))


@dataclass(frozen=True)
class _Address:
    """The URL of the endpoint, and the address that its host name had when it was checked."""

    parts: SplitResult
    host: str
    timeout_s: float

    def ask(self, model: str, prompt: str) -> str:
        """Return the answer of the model.

        Raises:
            EndpointError: if there is no answer, or it is not a chat completion.
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
            raise EndpointError(
                "the endpoint answered with something other than a chat completion."
            ) from error
        if not isinstance(content, str | None):
            raise EndpointError(f"the endpoint answered with a {type(content).__name__}, not with text.")
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
                f"the endpoint at {self.parts.netloc} gave no answer ({type(error).__name__}). Start it, or "
                "correct the address."
            ) from error
        finally:
            connection.close()


def _reachable(parts: SplitResult, allowed_host: str) -> str:
    """Return the address to connect to: the allowed host, or an address of this machine.

    Raises:
        ValueError: if the host is unknown, or another machine that was not allowed.
    """
    host = parts.hostname or ""
    if allowed_host and host == allowed_host.strip().casefold():
        return host
    try:
        entries = socket.getaddrinfo(host, parts.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"the host {host!r} of the endpoint is unknown. Correct the URL.") from error
    addresses = {entry[4][0] for entry in entries}
    if not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        raise ValueError(
            f"the endpoint is on another machine, {host!r}; prompts stay on this machine unless the command "
            "line names that host with --allow-host."
        )
    # the address instead of the name, because the name could resolve differently after this check
    return min(addresses, key=lambda address: (":" in address, address))


def _cleaned(answer: str) -> str | None:
    """Return the first line of an answer that is a prompt, without the quotes around it.

    The model's thoughts, also unfinished ones, and announcements of the prompt are left out.
    """
    reply = answer.rpartition(_THOUGHT_END)[2].partition(_THOUGHT_START)[0]
    lines = (_unquoted(re.sub(_LABEL, "", _unquoted(line))) for line in text_lines(reply))
    return next((line for line in lines if line and not line.endswith(":")), None)


def _unquoted(line: str) -> str:
    return line.strip().strip("\"'`*\u201c\u201d").strip()
