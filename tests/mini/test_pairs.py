"""Pairs that a mini model draws: what is drawn, what is kept, and what the folder holds."""

import json

import pytest
import torch
from PIL import Image

from training.mini.pairs import (
    Asked,
    PairToDraw,
    held_out_scenes,
    pairs_to_draw,
    prompts_of,
    safe_scenes,
    slug,
    trained_scenes,
    write_pairs,
)
from training.mini.scenes import NEUTRAL_ICONS, SAFE_TWINS, scenes_of
from training.pairs import load_pairs
from training.rules.categories import CATEGORIES

SKULL, SMILEY, DRAGON, KITE = (Asked(f"a {name}", (name,)) for name in ("skull", "smiley", "dragon", "kite"))


class Brush:
    """Draws each prompt in one shade and answers with its noun, or with what `seen` says instead."""

    def __init__(self, **seen):
        self.seen, self.calls = seen, []

    def draw(self, prompts, seeds):
        self.calls.append((list(prompts), list(seeds)))
        self.shades = getattr(self, "shades", {})
        for prompt in prompts:
            self.shades.setdefault(prompt, len(self.shades) / 10)
        shades = torch.tensor([self.shades[prompt] for prompt in prompts])
        return shades[:, None, None, None].expand(-1, 3, 64, 64)

    def answers(self, pictures):
        prompts = {round(shade, 3): prompt for prompt, shade in self.shades.items()}
        nouns = [prompts[round(float(picture[0, 0, 0]), 3)].split()[1] for picture in pictures]
        return [(self.seen.get(noun, noun),) for noun in nouns]


def written(folder, pairs, **seen):
    brush = Brush(**seen)
    kept = write_pairs(folder, "self-harm", pairs, draw=brush.draw, judge=brush)
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    assert len(rows) == kept
    return brush, rows


def test_a_folder_holds_pairs_and_nothing_else_and_loads(tmp_path):
    folder = tmp_path / "new"
    brush, rows = written(folder, [PairToDraw(SKULL, SMILEY), PairToDraw(DRAGON, KITE)])
    assert sorted(path.suffix for path in folder.iterdir()) == [".jsonl", *[".png"] * 4]
    pairs = load_pairs(folder)
    assert [(pair.unsafe_prompt, pair.safe_prompt) for pair in pairs.pairs] == [
        ("a skull", "a smiley"),
        ("a dragon", "a kite"),
    ]
    assert (pairs.categories, pairs.neutral, pairs.report.dropped) == (("self-harm",), (), {})
    assert Image.open(pairs.pairs[1].winner).getpixel((0, 0)) == (166,) * 3  # (0.3 + 1) * 127.5, rounded


def test_both_pictures_of_a_pair_are_drawn_from_one_seed(tmp_path):
    brush, _ = written(tmp_path, [PairToDraw(SKULL, SMILEY), PairToDraw(DRAGON, KITE)])
    (losers, seeds), (winners, same) = brush.calls
    assert (losers, winners) == (["a skull", "a dragon"], ["a smiley", "a kite"])
    assert seeds == same
    assert len(set(seeds)) == 2


@pytest.mark.parametrize("seen", [{"skull": "smiley"}, {"smiley": "none"}])
def test_a_pair_is_left_out_if_one_of_its_pictures_shows_something_else(tmp_path, seen):
    _, rows = written(tmp_path, [PairToDraw(SKULL, SMILEY), PairToDraw(DRAGON, KITE)], **seen)
    assert [row["id"] for row in rows] == ["self_harm_0001"]
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_every_prompt_is_encoded_once_and_the_empty_one_too():
    pairs = [PairToDraw(SKULL, SMILEY), PairToDraw(DRAGON, SMILEY)]
    assert prompts_of(pairs) == ["", "a skull", "a smiley", "a dragon"]


def test_categories_become_file_names():
    assert [slug(name) for name in ("illegal activity", "self-harm")] == ["illegal_activity", "self_harm"]


def test_pairs_of_the_small_world_show_no_neutral_icon_and_no_held_out_scene():
    drawn = {asked.answers for name in CATEGORIES for pair in pairs_to_draw(name, 48) for asked in pair}
    assert not {icon for icon, _, _ in drawn} & set(NEUTRAL_ICONS)
    for icon in SAFE_TWINS.values():
        held_out = {scene.answers for scene in held_out_scenes(icon)}
        assert len(held_out) == 5
        assert not drawn & held_out


def test_scenes_are_split_without_rest():
    for icon in SAFE_TWINS.values():
        assert {*trained_scenes(icon), *held_out_scenes(icon)} == set(scenes_of(icon))
    assert {scene.icon for scene in safe_scenes()} == set(SAFE_TWINS.values())
