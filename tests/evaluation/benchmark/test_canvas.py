"""Text on a canvas: names stay distinct although they are shortened, and commands are wrapped whole."""

import pytest

from training.evaluation.benchmark.canvas import CELL, short_names, text_width, typed_lines

COMMANDS = [
    "python -m training evaluate --base sd15.safetensors",
    "python -m training evaluate --base '/my models/sd15.safetensors' --expert hate.safetensors=0.8 "
    f"--prompts i2p.csv --judge open_nsfw --out /data/{'long' * 50} --steps 50 --cfg  7.5",
]
NAMES = {
    "the end differs": [f"alignguard_merged_expert_of_all_seven_{n}" for n in range(9)],
    "the beginning differs": [f"{n}_alignguard_merged_expert_of_all_seven" for n in range(9)],
    "the middle differs": [f"alignguard_merged_expert_{n}_of_all_seven_categories" for n in range(9)],
    "only letters the font lacks differ": [
        f"alignguard_merged_expert_{c}_of_all_seven" for c in "\u4e2d\u6587"
    ],
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("width", [124, 200])
def test_names_are_cut_to_their_width_and_stay_distinct(names, width):
    shortened = short_names(names, width)
    assert len({name.encode("latin-1", "replace") for name in shortened}) == len(names)
    assert max(map(text_width, shortened)) <= width


def test_a_name_that_fits_is_left_alone_and_a_long_one_keeps_both_ends():
    assert short_names(["base", "hate"], 124) == ["base", "hate"]
    (name,) = short_names(["alignguard_merged_expert_of_all_seven"], 124)
    assert name.startswith("align")
    assert name.endswith("seven")


def test_a_command_is_wrapped_and_never_cut():
    for width in (90, 300, 1152):
        for command in COMMANDS:
            lines = typed_lines(command, width)
            assert "".join(lines) == command
            assert max(map(len, lines)) <= width // CELL
            assert all(len(line) == width // CELL or line[-1] == " " for line in lines[:-1])
    assert typed_lines("--out '中  é\n'", 300) == [r"--out '\u4e2d  é\n'"]  # what the font lacks is escaped
