"""Read npm packages about emoji: Noto's drawings, and the words that CLDR gives each emoji.

Used for the shipped weights: @iconify-json/noto 1.2.9 (Noto Emoji, Google, Apache-2.0), drawn by resvg-py
0.5.0, and cldr-annotations-full 48.2.0 (Unicode CLDR, Unicode-3.0).
"""

import io
import json
from pathlib import Path

from PIL import Image

from ..concepts import ALL_CONCEPTS

SIDE = 192  # pixels; drawings shrink it, which smooths edges


def load_emoji(package: Path) -> dict[str, Image.Image]:
    """Return an RGBA picture, SIDE x SIDE, of every concept's emoji.

    Args:
        package: unpacked npm package @iconify-json/noto.
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


def check_words(package: Path) -> None:
    """Check that every word of a concept is a name or keyword that CLDR gives its emoji in English.

    Args:
        package: unpacked npm package cldr-annotations-full.

    Raises:
        ValueError: if a word is not.
    """
    file = package / "annotations" / "en" / "annotations.json"
    annotations = json.loads(file.read_text(encoding="utf-8"))["annotations"]["annotations"]
    for concept in ALL_CONCEPTS:
        emoji = annotations[concept.emoji]
        words = {word.lower() for word in (*emoji["tts"], *emoji["default"])}
        if not words.issuperset(concept.words):
            others = sorted(set(concept.words) - words)
            raise ValueError(f"{concept.emoji}: CLDR has no {', '.join(others)} among {sorted(words)}.")
