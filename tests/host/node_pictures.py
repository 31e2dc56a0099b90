"""Photograph every node in ComfyUI's page, for its help page: `alignguard_nodes/web/docs/<node id>.jpg`.

`.venv/bin/python tests/host/node_pictures.py [NODE ID ...]` (default: all nodes), with tests/host and the
repository on PYTHONPATH. Needs a Chrome or Chromium.
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

import dev
from base_folder import place_mini
from browser import ComfyPage, find_browser, open_browser
from comfy_server import ComfyServer
from training.mini.build import build_mini, version

HELP = dev.ROOT / "alignguard_nodes" / "web" / "docs"
ALONE = """(type) => {
    app.graph.clear()
    const node = LiteGraph.createNode(type)
    app.graph.add(node)
    node.pos = [0, 0]
    app.canvas.deselectAll()
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [400, 200]
    app.canvas.setDirty(true, true)
    return node.id
}"""
TALL = {"width": 1920, "height": 2400}  # the longest node must be in sight as a whole


def main() -> int:
    """Write the pictures of the named nodes, or of all."""
    executable = find_browser()
    if executable is None:
        sys.exit("no Chrome or Chromium is installed (or CHROME_PATH names none)")
    mini = build_mini(dev.ROOT / ".host" / f"mini-{version()}")
    with (
        tempfile.TemporaryDirectory() as folder,
        ComfyServer(Path(folder)) as server,
        open_browser(executable) as browser,
    ):
        place_mini(Path(folder), mini)
        page = ComfyPage(browser, server.url, new_rendering=True)
        page.page.set_viewport_size(TALL)
        for node in sys.argv[1:] or sorted(page.stem for page in HELP.glob("*.md")):
            number = page.ask(ALONE, node)
            page.wait_until_drawn()
            png = page.page.locator(f'[data-node-id="{number}"]').screenshot()
            picture = Image.open(io.BytesIO(png)).convert("RGB")
            picture.save(HELP / f"{node}.jpg", quality=85)
    return 0


if __name__ == "__main__":
    sys.exit(main())
