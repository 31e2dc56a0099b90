"""Run the shipped graphs and make thumbnails of their pictures: before above, after below.

`.venv/bin/python tests/host/thumbnails.py [GRAPH ...]` (default: all graphs), with tests/host and the
repository on PYTHONPATH.
"""

import json
import sys
import tempfile
from pathlib import Path

from PIL import Image

import dev
from base_folder import place_mini
from comfy_server import ComfyServer
from training.mini.build import build_mini, version

WORKFLOWS = dev.ROOT / "workflows"
TILE, GAP = 128, 6
PAPER = (250, 249, 246)


def main() -> int:
    """Write `workflows/<graph>.jpg` for the named graphs, or for all."""
    mini = build_mini(dev.ROOT / ".host" / f"mini-{version()}")
    with tempfile.TemporaryDirectory() as folder, ComfyServer(Path(folder)) as server:
        place_mini(Path(folder), mini)
        for name in sys.argv[1:] or sorted(graph.stem for graph in WORKFLOWS.glob("*.json")):
            server.run(_prompt(name), timeout_s=3600)
            drawn = sorted(
                (server.output_dir / "alignguard").glob("*.png"), key=lambda path: path.stat().st_mtime
            )
            rows = [[path for path in drawn if state in path.name][-4:] for state in ("_before_", "_after_")]
            picture = _sheet(rows) if rows[0] else _small(drawn[-1])
            picture.save(WORKFLOWS / f"{name}.jpg", quality=90)
    return 0


def _prompt(name: str) -> dict:
    """Return the API prompt of a graph."""
    api = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))["extra"]["api"]
    return json.loads((WORKFLOWS / "api" / f"{api}.json").read_text(encoding="utf-8"))


def _small(path: Path) -> Image.Image:
    """Return a single picture, such as a report, scaled down."""
    picture = Image.open(path).convert("RGB")
    picture.thumbnail((4 * TILE, 4 * TILE), Image.Resampling.LANCZOS)
    return picture


def _sheet(rows: list[list[Path]]) -> Image.Image:
    step = TILE + GAP
    sheet = Image.new("RGB", (GAP + step * len(rows[0]), GAP + step * len(rows)), PAPER)
    for y, row in enumerate(rows):
        for x, path in enumerate(row):
            tile = Image.open(path).convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS)
            sheet.paste(tile, (GAP + x * step, GAP + y * step))
    return sheet


if __name__ == "__main__":
    sys.exit(main())
