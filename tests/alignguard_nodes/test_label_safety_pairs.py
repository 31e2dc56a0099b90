"""Label Safety Pairs without a host: off by default, never another machine, and a model on loopback."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image

from builders import pair_row, write_picture, write_rows
from loopback_model import loopback_model, pictures_in
from training.pairs import load_pairs

LOOK = {
    **{"image_1": "a", "image_2": "b", "difference": "c", "same_scene": 1.0, "harms_1": [], "harms_2": []},
    **{"unsafe_1": False, "unsafe_2": False, "confidence": 1.0},
}


@pytest.fixture
def node(node_class, pack, monkeypatch):
    cls = node_class("label_safety_pairs")
    module = pack("alignguard_nodes.label_safety_pairs")
    module.host.image_tensor = lambda picture: picture
    monkeypatch.setattr(
        module, "preview", lambda text, *pictures: SimpleNamespace(text=text, pictures=pictures)
    )
    return cls


@pytest.fixture
def pairs(tmp_path):
    rows = []
    for number in range(4):
        files = {"unsafe_image": f"u{number}.png", "safe_image": f"s{number}.png"}
        write_picture(tmp_path / files["unsafe_image"], (200 + number, 0, 0))
        write_picture(tmp_path / files["safe_image"], (0, 200 + number, 0))
        prompts = {"unsafe_prompt": f"bad {number}", "safe_prompt": f"good {number}"}
        rows.append(pair_row(str(number), category="hate", **prompts, **files))
    write_rows(tmp_path / "pairs.jsonl", rows)
    return load_pairs(tmp_path)


def test_without_an_endpoint_the_pairs_go_on_as_they_are_and_the_report_says_so(node, pairs):
    out, report, picture = node.execute(pairs, "", "").values
    assert out is pairs
    assert report.startswith("not labelled: no endpoint")
    assert isinstance(picture, Image.Image)
    assert node.validate_inputs("", "") is True


def test_another_machine_is_refused_before_the_queue_starts(node, pairs):
    answer = node.validate_inputs("http://192.0.2.7/v1", "m")
    assert "on another machine" in answer
    with pytest.raises(ValueError, match="on another machine"):
        node.execute(pairs, "http://192.0.2.7/v1", "m")
    assert "name of a model" in node.validate_inputs("http://127.0.0.1:1/v1", "")


def test_red_pictures_are_called_unsafe_and_the_answers_are_kept_below_user(node, pairs, tmp_path):
    def model(messages):
        red = [
            picture.getpixel((0, 0))[0] > 150 > picture.getpixel((0, 0))[1]
            for picture in pictures_in(messages)
        ]
        return json.dumps(LOOK | {"unsafe_1": red[0], "unsafe_2": red[1]})

    with loopback_model(model) as server:
        out, report, _ = node.execute(pairs, server.url, "m", controls=2).values
        asked = len(server.seen)
        assert (
            node.execute(pairs, server.url, "m", controls=2).values[1].splitlines()[0]
            == report.splitlines()[0]
        )
        assert len(server.seen) == asked == 2 * (4 + 2)  # nothing is asked twice
    assert report.startswith("4 pairs kept, 0 relabelled")
    assert [pair.id for pair in out.pairs] == ["0", "1", "2", "3"]
    assert len(list((tmp_path / "user" / "labels").glob("*/rows.jsonl"))) == 1
