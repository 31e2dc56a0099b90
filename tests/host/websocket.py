"""What an open browser is told while a prompt runs, read from the server's web socket."""

import asyncio
import json
import uuid
from typing import Any, NamedTuple

import aiohttp  # ComfyUI's own requirement, so it is wherever a server can be started

from comfy_server import ComfyServer

TEXT, PICTURE = 3, 4  # ComfyUI's protocol.py: TEXT, PREVIEW_IMAGE_WITH_METADATA
LIMIT_S = 300


class Told(NamedTuple):
    """What one prompt's nodes sent, in order.

    Attributes:
        texts: (node, text) as shown in the node.
        pictures: (node, encoded picture) as shown below it.
        events: (type, data) of everything else.
    """

    texts: list[tuple[str, str]]
    pictures: list[tuple[str, bytes]]
    events: list[tuple[str, dict[str, Any]]]


def watched_run(server: ComfyServer, prompt: dict) -> Told:
    """Run an API prompt as a browser does, and return what that browser was told until its end."""
    return asyncio.run(asyncio.wait_for(_watch(server, prompt), LIMIT_S))


async def _watch(server: ComfyServer, prompt: dict) -> Told:
    told, client = Told([], [], []), uuid.uuid4().hex
    url = f"{server.url.replace('http', 'ws', 1)}/ws?clientId={client}"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
        await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        number = await asyncio.to_thread(server.post, prompt, client)
        async for message in socket:
            if message.type == aiohttp.WSMsgType.BINARY:
                _take(message.data, told)
                continue
            event = json.loads(message.data)
            told.events.append((event["type"], event["data"]))
            ended = event["type"] in ("execution_success", "execution_error", "execution_interrupted")
            if ended and event["data"]["prompt_id"] == number:
                return told
    raise AssertionError("the server closed the socket before the prompt ended")


def _take(data: bytes, told: Told) -> None:
    kind, length = (int.from_bytes(data[start : start + 4], "big") for start in (0, 4))
    head, rest = data[8 : 8 + length], data[8 + length :]
    if kind == TEXT:
        told.texts.append((head.decode(), rest.decode()))
    elif kind == PICTURE:
        told.pictures.append((json.loads(head)["node_id"], rest))
    else:
        raise AssertionError(f"the server sent a binary message of kind {kind}")
