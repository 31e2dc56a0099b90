"""Every route of the host that could tell or hand out a file, asked for pictures of pairs."""

import urllib.error
import urllib.request
from collections.abc import Iterable
from urllib.parse import quote

from comfy_server import ComfyServer

LISTS = (  # every route of the host that lists files or tells what ran; some are of newer hosts only
    *(f"/internal/files/{kind}" for kind in ("input", "output", "temp")),
    *("/object_info", "/history", "/queue", "/settings", "/global_subgraphs", "/workflow_templates"),
    *("/userdata?dir=.&recurse=true&full_info=true", "/v2/userdata", "/users", "/extensions", "/models"),
    *("/userdata?dir=../__alignguard/pairs&recurse=true", "/v2/userdata?path=../__alignguard/pairs"),
    *("/experiment/models", "/api/assets?limit=500", "/api/assets?include_tags=input&limit=500", "/api/jobs"),
)
VIEWS = (  # every route that serves a file by name; {path} is below the pairs' folder
    *(f"/view?type={kind}&filename={{path}}" for kind in ("input", "output", "temp", "user")),
    *(f"/view?type={kind}&subfolder={{folder}}&filename={{name}}" for kind in ("input", "output", "temp")),
    "/view?type=input&subfolder=../user/__alignguard/pairs/{folder}&filename={name}",
    "/view?type=input&filename=../user/__alignguard/pairs/{path}",
    *("/userdata/{quoted}", "/userdata/..%2F__alignguard%2Fpairs%2F{quoted}"),
    *("/extensions/alignguard/{path}", "/user/__alignguard/pairs/{path}", "/{path}"),
)


def routes_that_give(server: ComfyServer, folder: str, names: Iterable[str], user: str = "") -> list[str]:
    """Return the routes that list or serve a picture of a folder of pairs.

    Args:
        server: a running ComfyUI.
        folder: below the place of the pairs.
        names: of the pictures in it.
        user: whom the request comes from, for servers with several users; empty for none.
    """
    names, giving = list(names), []
    for route in LISTS:
        body = answer(server, route, user).decode(errors="replace")
        giving += [route] * any(name in body for name in names)
    for name in names:
        path, picture = f"{folder}/{name}", (server.pairs_dir / folder / name).read_bytes()
        parts = {"path": path, "folder": folder, "name": name, "quoted": quote(path, safe="")}
        routes = (route.format(**parts) for route in VIEWS)
        giving += [route for route in routes if picture in answer(server, route, user)]
    return giving


def answer(server: ComfyServer, route: str, user: str = "") -> bytes:
    """Return the body of a route, empty if the host refuses it."""
    request = urllib.request.Request(server.url + route, headers={"comfy-user": user} if user else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.read()
    except urllib.error.HTTPError:
        return b""
