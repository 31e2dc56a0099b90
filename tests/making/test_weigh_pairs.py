"""Scoring the pairs of a folder."""

import json

import pytest

from builders import pair_row, write_picture, write_rows
from training.evaluation import Judge, Panel
from training.making.weigh_pairs import Rewards, weigh_pairs
from training.pairs import load_pairs

JUDGE = Judge("red", "1", "plain", 0.5, ("hate",), lambda images: images[:, 0].mean(dim=(1, 2))[:, None])


def row(name, unsafe, safe, category="hate", folder=None):
    files = {f"{kind}_image": f"{kind}_{name}.png" for kind in ("unsafe", "safe")}
    for file, red in zip(files.values(), (unsafe, safe), strict=True):
        write_picture(folder / file, (red, int(name), 0))
    prompts = {"unsafe_prompt": f"bad {name}", "safe_prompt": f"good {name}"}
    return pair_row(name, category=category, **prompts, **files, note="kept")


@pytest.fixture
def folder(tmp_path):
    rows = [row("1", 255, 0, folder=tmp_path), row("2", 51, 204, folder=tmp_path)]
    rows += [row("3", 255, 0, "violence", folder=tmp_path), row("4", 255, 0, folder=tmp_path)]
    rows[3]["unsafe_image"] = "../outside.png"
    write_rows(tmp_path / "pairs.jsonl", [*rows[:2], "", "no object", *rows[2:], ""])
    return tmp_path


def test_every_row_gets_the_scores_of_its_pictures_and_keeps_its_other_fields(folder):
    before = (folder / "pairs.jsonl").read_text()
    report = weigh_pairs(folder, Panel((JUDGE,)))
    assert report == (2, 1, 1, 2)
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines() if line[0] == "{"]
    judge = "red 1, preset plain, threshold 0.5"
    assert rows[0]["scores"] == {
        "unsafe_image": 1.0,
        "safe_image": 0.0,
        "loser_is_unsafe": True,
        "winner_is_safe": True,
        "judge": judge,
    }
    assert (rows[1]["scores"]["loser_is_unsafe"], rows[1]["scores"]["winner_is_safe"]) == (False, False)
    assert rows[0]["note"] == "kept"
    assert "scores" not in rows[2]
    assert (folder / "pairs_unweighed.jsonl").read_text() == before
    pairs = load_pairs(folder).pairs
    assert [pair.safety_gap for pair in pairs] == [1.0, pytest.approx(-0.6), None]
    assert [pair.judged_right for pair in pairs] == [True, False, None]


def test_a_row_that_the_hard_rule_forbids_is_never_judged(folder):
    lines = (folder / "pairs.jsonl").read_text().splitlines()
    forbidden = json.loads(lines[0]) | {"unsafe_prompt": "a nude kid"}
    write_rows(folder / "pairs.jsonl", [forbidden])

    def never(images):
        raise AssertionError("looked at")

    judge = Judge("never", "1", "plain", 0.5, ("hate",), never)
    assert weigh_pairs(folder, Panel((judge,))).unreadable == 1
    assert json.loads((folder / "pairs.jsonl").read_text()) == forbidden


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("is_array", [False, True])
def test_a_manifest_in_another_form_is_scored_too_and_kept_as_it_was(folder, encoding, is_array):
    rows = [row("1", 255, 0, folder=folder), row("2", 51, 204, folder=folder)]
    text = json.dumps(rows, indent=1) if is_array else "\r\n".join(map(json.dumps, rows))
    (folder / "pairs.jsonl").write_bytes(text.encode(encoding))
    assert weigh_pairs(folder, Panel((JUDGE,))).scored == 2
    assert (folder / "pairs_unweighed.jsonl").read_bytes() == text.encode(encoding)
    lines = (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    scored = [json.loads(line) for line in lines]
    assert [line.pop("scores")["unsafe_image"] for line in scored] == [1.0, 0.2]
    assert scored == rows


def test_weighing_again_gives_the_same_and_keeps_the_first_manifest(folder):
    weigh_pairs(folder, Panel((JUDGE,)))
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    weigh_pairs(folder, Panel((JUDGE,)))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == first


def test_weighing_again_loses_neither_earlier_scores_nor_lines_written_meanwhile(folder):
    weigh_pairs(folder, Panel((JUDGE,)))
    first = (folder / "pairs.jsonl").read_bytes()
    other = Judge("red", "2", "plain", 0.5, ("hate",), JUDGE.scorer)
    added = b'{"id": "new", "note": "meanwhile"}'

    def write(done, total):
        if done == 1:
            (folder / "pairs.jsonl").write_bytes(first + added)

    weigh_pairs(folder, Panel((other,)), on_progress=write)
    assert (folder / "pairs_unweighed_2.jsonl").read_bytes() == first + added
    assert added in (folder / "pairs.jsonl").read_bytes().splitlines()
    weigh_pairs(folder, Panel((JUDGE,)))
    assert len(list(folder.glob("pairs_unweighed*.jsonl"))) == 3
    blind = Judge("blind", "1", "plain", 0.5, ("sexual",), JUDGE.scorer)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert weigh_pairs(folder, Panel((blind,))).scored == 0
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize(("unsafe", "scored"), [(255, 1), (51, 0)])
def test_a_pair_with_an_uncovered_category_is_scored_only_if_another_category_is_flagged(
    tmp_path, unsafe, scored
):
    write_rows(tmp_path / "pairs.jsonl", [row("1", unsafe, 0, "hate,violence", folder=tmp_path)])
    report = weigh_pairs(tmp_path, Panel((JUDGE,)))
    assert (report.scored, report.unmeasured) == (scored, 1 - scored)
    assert ("scores" in json.loads((tmp_path / "pairs.jsonl").read_text())) == bool(scored)


def test_a_stopped_weighing_leaves_the_folder_unchanged(folder):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def stop(done, total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weigh_pairs(folder, Panel((JUDGE,)), on_progress=stop)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_folder_without_pairs_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"has no pairs\.jsonl"):
        weigh_pairs(tmp_path, Panel((JUDGE,)))


# costs and qualities


def red(picture):
    return float(picture[:, 0].mean())


def first_scores(folder):
    lines = (folder / "pairs.jsonl").read_text().splitlines()
    return [json.loads(line).get("scores") for line in lines if line.startswith("{")][0]


def test_costs_are_written_without_a_judge_and_read_as_the_gap_of_the_pair(folder):
    report = weigh_pairs(folder, None, rewards=Rewards(cost=lambda picture: 4 * red(picture) - 2))
    assert (report.scored, report.mislabelled, report.unmeasured) == (3, 1, 0)
    assert first_scores(folder) == {"cost_unsafe": 2.0, "cost_safe": -2.0}
    gaps = [pair.cost_gap for pair in load_pairs(folder).pairs]
    assert gaps == pytest.approx([4.0, -2.4, 4.0])
    assert [pair.quality_gap for pair in load_pairs(folder).pairs] == [None] * 3


def test_each_picture_is_rated_under_its_own_prompt(folder):
    asked = []
    weigh_pairs(folder, None, rewards=Rewards(quality=lambda picture, prompt: asked.append(prompt) or 1.0))
    assert asked[:2] == ["bad 1", "good 1"]
    assert first_scores(folder) == {"quality_unsafe": 1.0, "quality_safe": 1.0}


def test_judges_costs_and_a_persons_own_qualities_do_not_replace_each_other(folder):
    rows = [row("1", 255, 0, folder=folder) | {"scores": {"quality_unsafe": 0.5, "quality_safe": 0.25}}]
    write_rows(folder / "pairs.jsonl", rows)
    weigh_pairs(folder, Panel((JUDGE,)))
    weigh_pairs(folder, None, rewards=Rewards(cost=red))
    scores = first_scores(folder)
    assert (scores["unsafe_image"], scores["cost_unsafe"], scores["quality_unsafe"]) == (1.0, 1.0, 0.5)
    (pair,) = load_pairs(folder).pairs
    assert (pair.safety_gap, pair.cost_gap, pair.quality_gap) == (1.0, 1.0, -0.25)


def test_a_new_judge_leaves_no_verdict_of_the_old_one(folder):
    old = {"unsafe_image": 0.1, "note": "old", "cost_safe": -1.0}
    write_rows(folder / "pairs.jsonl", [row("1", 255, 0, folder=folder) | {"scores": old}])
    weigh_pairs(folder, Panel((JUDGE,)))
    scores = first_scores(folder)
    assert "note" not in scores
    assert (scores["unsafe_image"], scores["cost_safe"]) == (1.0, -1.0)


def test_a_pair_that_no_judge_covers_still_gets_its_costs(folder):
    blind = Judge("blind", "1", "plain", 0.5, ("sexual",), JUDGE.scorer)
    report = weigh_pairs(folder, Panel((blind,)), rewards=Rewards(cost=red))
    assert (report.scored, report.unmeasured) == (0, 3)
    assert first_scores(folder) == {"cost_unsafe": 1.0, "cost_safe": 0.0}
