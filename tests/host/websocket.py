"""The messages that an open browser receives while a prompt runs, read from the server's web socket."""

import asyncio
import json
import uuid
from typing import Any, NamedTuple

import aiohttp  # a requirement of ComfyUI, so it is installed wherever a server can start

from comfy_server import ComfyServer

TEXT, PICTURE = 3, 4  # ComfyUI's protocol.py: TEXT, PREVIEW_IMAGE_WITH_METADATA
LIMIT_S = 300


class Messages(NamedTuple):
    """Messages that the nodes of one prompt sent, in order.

    Attributes:
        texts: (node, text) as shown in the node.
        pictures: (node, encoded picture) as shown below it.
        events: (type, data) of all other messages.
    """

    texts: list[tuple[str, str]]
    pictures: list[tuple[str, bytes]]
    events: list[tuple[str, dict[str, Any]]]


def watched_run(server: ComfyServer, prompt: dict) -> Messages:
    """Run an API prompt as a browser does, and return the messages that the browser receives."""
    return asyncio.run(asyncio.wait_for(_watch(server, prompt), LIMIT_S))


async def _watch(server: ComfyServer, prompt: dict) -> Messages:
    messages, client = Messages([], [], []), uuid.uuid4().hex
    url = f"{server.url.replace('http', 'ws', 1)}/ws?clientId={client}"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
        await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        prompt_id = await asyncio.to_thread(server.post, prompt, client)
        async for message in socket:
            if message.type == aiohttp.WSMsgType.BINARY:
                _take(message.data, messages)
                continue
            event = json.loads(message.data)
            messages.events.append((event["type"], event["data"]))
            ended = event["type"] in ("execution_success", "execution_error", "execution_interrupted")
            if ended and event["data"]["prompt_id"] == prompt_id:
                return messages
    raise AssertionError("the server closed the socket before the prompt ended")


def _take(data: bytes, messages: Messages) -> None:
    kind, length = (int.from_bytes(data[start : start + 4], "big") for start in (0, 4))
    head, rest = data[8 : 8 + length], data[8 + length :]
    if kind == TEXT:
        messages.texts.append((head.decode(), rest.decode()))
    elif kind == PICTURE:
        messages.pictures.append((json.loads(head)["node_id"], rest))
    else:
        raise AssertionError(f"the server sent a binary message of kind {kind}")
