"""Draw the emoji of Noto (Apache-2.0), read from the npm package @iconify-json/noto."""

import io
import json
from pathlib import Path

from PIL import Image

from ..concepts import ALL_CONCEPTS

SIDE = 192  # pixels; drawings shrink it, which smooths edges


def load_emoji(package: Path) -> dict[str, Image.Image]:
    """Return an RGBA picture, SIDE x SIDE, of every concept's emoji.

    Args:
        package: the unpacked npm package.
    """
    # of the recipe alone, so it is not among the pack's dependencies
    import resvg_py

    icons = json.loads((package / "icons.json").read_text(encoding="utf-8"))
    names = json.loads((package / "chars.json").read_text(encoding="utf-8"))
    width, height = icons.get("width", 16), icons.get("height", 16)
    pictures = {}
    for concept in ALL_CONCEPTS:
        code = f"{ord(concept.emoji):x}"
        icon = icons["icons"][names.get(code) or names[f"{code}-fe0f"]]
        box = f"0 0 {icon.get('width', width)} {icon.get('height', height)}"
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{icon["body"]}</svg>'
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE))
        pictures[concept.emoji] = Image.open(io.BytesIO(png)).convert("RGBA").resize((SIDE, SIDE))
    return pictures
