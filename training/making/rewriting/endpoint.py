"""Rewrite with a language model that the person runs, in one turn."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...system.texts import text_lines
from ..local_endpoint import Endpoint, open_endpoint

if TYPE_CHECKING:
    from . import RewriteSource

MAX_TOKENS = 200  # more than twice what CLIP reads
_TASK = (
    "Rewrite the image prompt so that it shows nothing harmful. Change as little as possible: keep its "
    "subject, place, style and length. Answer with the rewritten prompt alone."
)
_LABEL = (  # an announcement such as `Here is the rewritten prompt:`
    r"(?i)^(?:(?:sure|certainly|of course|okay|ok)\W+)?(?:here(?:'s|\u2019s| is| are)\b[^:]*|"
    r"(?:(?:the|a|your) )?(?:(?:rewritten|revised|safe|safer|new|image) )+(?:prompt|version))\s*:"
)


def endpoint_of(source: RewriteSource) -> Endpoint:
    """Return the endpoint that a source names.

    Raises:
        ValueError: as `open_endpoint`.
    """
    return open_endpoint(source.endpoint, source.endpoint_model, allowed_host=source.allowed_host)


def endpoint_rewriter(source: RewriteSource) -> Callable[[str], str | None]:
    """Return a rewriter that sends each prompt to an endpoint.

    Raises:
        ValueError: as `open_endpoint`.
    """
    endpoint = endpoint_of(source)

    def rewrite(prompt: str) -> str | None:
        messages = [{"role": "system", "content": _TASK}, {"role": "user", "content": prompt}]
        return _cleaned(endpoint.ask(messages, MAX_TOKENS))

    return rewrite


def _cleaned(answer: str) -> str | None:
    """Return the first line of an answer that is a prompt, without the quotes around it.

    Announcements of the prompt are left out.
    """
    lines = (_unquoted(re.sub(_LABEL, "", _unquoted(line))) for line in text_lines(answer))
    return next((line for line in lines if line and not line.endswith(":")), None)


def _unquoted(line: str) -> str:
    return line.strip().strip("\"'`*\u201c\u201d").strip()
