"""Ask a language model that the person runs: an OpenAI-compatible endpoint on their machine.

This is the only file of the pack that opens a connection, and only if a person names an endpoint. What is
asked is sent to that address only: no system proxy is used, no redirect is followed, nothing is retried.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

TIMEOUT_S = 120.0  # for one answer; enough for a large model on a CPU
_ANSWER_BYTES = 2**20
_THOUGHT_START, _THOUGHT_END = "<think>", "</think>"  # some servers omit the first tag
_FENCE = re.compile(r"```(?:json)?\s*\n(.*)\n```", re.DOTALL)


class EndpointError(RuntimeError):
    """Raised if the endpoint gives no usable answer."""


class MalformedError(RuntimeError):
    """Raised if an answer is not the JSON that was asked for."""


@dataclass(frozen=True)
class Endpoint:
    """A model at an endpoint, and the address that its host name had when it was checked.

    Make it with `open_endpoint`.
    """

    model: str
    parts: SplitResult
    host: str
    timeout_s: float

    def ask(self, messages: Sequence[Mapping[str, Any]], max_tokens: int) -> str:
        """Return the answer of the model, without its thoughts.

        Args:
            messages: as OpenAI's chat completions take them.
            max_tokens: most tokens of the answer.

        Raises:
            EndpointError: if there is no answer, or it is not a chat completion.
        """
        body = {
            "model": self.model,
            "messages": list(messages),
            "temperature": 0,
            "max_tokens": max_tokens,
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
        return (content or "").rpartition(_THOUGHT_END)[2].partition(_THOUGHT_START)[0]

    def ask_json(
        self, messages: Sequence[Mapping[str, Any]], keys: Mapping[str, type], max_tokens: int
    ) -> dict[str, Any]:
        """Return the answer of the model as a JSON object with exactly these keys.

        Args:
            messages: as for `ask`.
            keys: name -> type of its value; float also takes whole numbers.
            max_tokens: as for `ask`.

        Raises:
            EndpointError: as `ask`.
            MalformedError: if the answer is anything else; its text says what, without the answer itself.
        """
        answer = self.ask(messages, max_tokens).strip()
        fenced = _FENCE.fullmatch(answer)
        try:
            value = json.loads(fenced[1] if fenced else answer)
        except (ValueError, RecursionError) as error:
            raise MalformedError("the answer is not JSON") from error
        if not isinstance(value, dict) or value.keys() != keys.keys():
            raise MalformedError("the answer has other keys than were asked for")
        for key, kind in keys.items():
            kinds = (int, float) if kind is float else (kind,)
            if type(value[key]) not in kinds:  # the exact type: true is no number
                raise MalformedError(f"{key} in the answer is not a {kind.__name__}")
        return value

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


def open_endpoint(url: str, model: str, *, allowed_host: str = "", timeout_s: float = TIMEOUT_S) -> Endpoint:
    """Check the address of a model; nothing is sent yet.

    Args:
        url: base URL such as `http://127.0.0.1:11434/v1`; `/chat/completions` is added.
        model: its name there.
        allowed_host: another host that the person allows; empty: only this machine.
        timeout_s: time limit for one answer, in seconds.

    Raises:
        ValueError: if the URL is invalid or points to another machine.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or not model.strip():
        raise ValueError(
            f"an endpoint needs a URL such as http://127.0.0.1:11434/v1 and the name of a model, got {url!r} "
            f"and {model!r}."
        )
    if parts.username or parts.query or parts.fragment:
        raise ValueError("the URL of an endpoint must not contain a user, query or fragment. Remove it.")
    return Endpoint(model, parts, _reachable(parts, allowed_host), timeout_s)


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
