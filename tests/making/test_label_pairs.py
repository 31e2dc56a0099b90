"""Labelling pairs by a vision-language model, played on loopback by the mini judge, in every mood."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from builders import pair_row, write_rows
from command_line import answer_of, assert_refused, run
from loopback_model import loopback_model, pictures_in
from training.config import LabelConfig
from training.evaluation import Panel, make_judge
from training.evaluation.statistics import cohens_kappa
from training.making.label_pairs import (
    BOTH_SAFE,
    CONTRADICTION,
    KEPT,
    MALFORMED,
    OTHER_SCENE,
    RELABELLED,
    REVERSED,
    label_pairs,
)
from training.making.local_endpoint import EndpointError, open_endpoint
from training.mini.scenes import COLOURS, GROUNDS, UNSAFE_ICONS, Scene, draw, scenes_of
from training.mini.shipped import load_judge
from training.pairs import load_pairs
from training.rules.categories import CATEGORIES

ICONS = {icon: name for name, icon in UNSAFE_ICONS.items()}
JUDGE = load_judge()


def write_folder(folder, per_category=4, seed=0):
    """Write drawn pairs; return the folder."""
    rng, rows = random.Random(seed), []
    folder.mkdir()
    for category, icon in UNSAFE_ICONS.items():
        for number, scene in enumerate(rng.choices(scenes_of(icon), k=per_category)):
            name = f"{category} {number}"
            files = {side: f"{side}_{category}_{number}.png" for side in ("unsafe", "safe")}
            for side, shown in (("unsafe", scene), ("safe", scene.safe_twin())):
                Image.fromarray(draw(shown, rng)).save(folder / files[side])
            prompts = {
                "unsafe_prompt": f"{scene.prompt()} {number}",
                "safe_prompt": scene.safe_twin().prompt(),
            }
            images = {f"{side}_image": file for side, file in files.items()}
            rows.append(pair_row(name, category=[category], **prompts, **images))
    write_rows(folder / "pairs.jsonl", rows)
    return folder


def swapped(pairs, share, seed=1):
    """Return pairs of which a share has its pictures exchanged, and the ids of these."""
    chosen = set(
        random.Random(seed).sample([pair.id for pair in pairs.pairs], round(share * len(pairs.pairs)))
    )
    changed = [
        replace(pair, winner=pair.loser, loser=pair.winner) if pair.id in chosen else pair
        for pair in pairs.pairs
    ]
    return replace(pairs, pairs=tuple(changed)), chosen


def with_wrong_winners(pairs, ids):
    """Return pairs of which these have the winner of another scene."""
    winners = {pair.id: pair.winner for pair in pairs.pairs}
    others = dict(zip(ids, [*ids[1:], ids[0]], strict=True))
    changed = [
        replace(pair, winner=winners[others[pair.id]]) if pair.id in others else pair for pair in pairs.pairs
    ]
    return replace(pairs, pairs=tuple(changed))


class Seer:
    """Sees what the mini judge sees, and errs at a rate, anew at every look."""

    def __init__(self, errors=0.0):
        self.rng, self.errors = random.Random(0), errors

    def answer(self, messages):
        seen = [self.see(picture) for picture in pictures_in(messages)]
        same = sum(first == second for first, second in zip(seen[0][1:], seen[1][1:], strict=True)) / 2
        unsafe = [bool(harms) != (self.rng.random() < self.errors) for harms, *_ in seen]
        return {
            "image_1": "a drawing",
            "image_2": "another drawing",
            "difference": "the icon",
            "same_scene": same,
            "harms_1": seen[0][0],
            "harms_2": seen[1][0],
            "unsafe_1": unsafe[0],
            "unsafe_2": unsafe[1],
            "confidence": 0.9,
        }

    @staticmethod
    def see(picture):
        pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255).movedim(-1, 0)[None]
        if pixels.amax() - pixels.amin() < 0.1:  # blank
            return [], "none", "none"
        ((icon, *scene),) = JUDGE.answers(pixels * 2 - 1)
        return [ICONS[icon]] if icon in ICONS else [], *scene

    def __call__(self, messages):
        return json.dumps(self.answer(messages))


def label(pairs, folder, model, panel=None, on_progress=None, **options):
    with loopback_model(model) as server:
        endpoint = open_endpoint(server.url, "seer")
        result = label_pairs(
            pairs, endpoint, folder, LabelConfig(**options), panel=panel, on_progress=on_progress
        )
        return *result, server.seen


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return load_pairs(write_folder(tmp_path_factory.mktemp("labels") / "pairs"))


def test_right_pairs_are_kept_and_reversed_ones_exchanged_in_two_calls_each(source, tmp_path):
    pairs, wrong = swapped(source, 0.3)
    labelled, report, seen = label(pairs, tmp_path / "labels", Seer())
    assert set(report.outcomes[RELABELLED]) == wrong
    assert report.count(KEPT) == len(source.pairs) - len(wrong)
    assert [(pair.winner, pair.loser) for pair in labelled.pairs] == [
        (pair.winner, pair.loser) for pair in source.pairs
    ]
    assert len(seen) == 2 * (len(source.pairs) + LabelConfig.controls)


def test_reversed_pairs_go_into_quarantine_if_they_are_not_to_be_exchanged(source, tmp_path):
    pairs, wrong = swapped(source, 0.3)
    labelled, report, _ = label(pairs, tmp_path / "labels", Seer(), relabel=False)
    assert set(report.quarantined[REVERSED]) == wrong
    assert len(labelled.pairs) == len(source.pairs) - len(wrong)


@pytest.mark.slow
def test_noisy_labels_are_cleaned_by_a_model_that_errs(tmp_path):
    source = load_pairs(write_folder(tmp_path / "pairs", per_category=16))
    ids = random.Random(2).sample([pair.id for pair in source.pairs], len(source.pairs) // 10)
    pairs, wrong = swapped(with_wrong_winners(source, ids), 0.3)
    labelled, report, _ = label(pairs, tmp_path / "labels", Seer(errors=0.05))
    right = {pair.id: (pair.winner, pair.loser) for pair in source.pairs}
    used = [right[pair.id] == (pair.winner, pair.loser) for pair in labelled.pairs]
    assert sum(used) / len(used) >= 0.99
    assert sum(used) / (len(source.pairs) - len(ids)) >= 0.9
    assert not wrong & set(report.outcomes[KEPT])


def test_a_model_that_blames_a_place_contradicts_itself(source, tmp_path):
    class Biased(Seer):
        def answer(self, messages):
            is_blank = all(self.see(picture)[1] == "none" for picture in pictures_in(messages))
            return super().answer(messages) | {"unsafe_1": not is_blank, "unsafe_2": False}

    with pytest.raises(
        ValueError, match=f"(?s)no pair is left.*{CONTRADICTION}: {len(source.pairs)}"
    ) as error:
        label(source, tmp_path / "labels", Biased())
    assert "icon" not in str(error.value)


def test_a_model_that_calls_blank_pictures_unsafe_is_refused(source, tmp_path):
    class Afraid(Seer):
        def answer(self, messages):
            return super().answer(messages) | {"unsafe_1": True, "unsafe_2": True}

    with pytest.raises(ValueError, match="calls 32 of 32 blank pictures unsafe"):
        label(source, tmp_path / "labels", Afraid())


def test_a_model_that_sees_no_danger_is_refused(source, tmp_path):
    class Blind(Seer):
        def answer(self, messages):
            return super().answer(messages) | {"unsafe_1": False, "unsafe_2": False}

    with pytest.raises(ValueError, match=f"no danger in {len(source.pairs)} of {len(source.pairs)} pairs"):
        label(source, tmp_path / "labels", Blind())


@pytest.mark.parametrize(
    "change",
    [
        "I cannot look at that.",
        "",
        "[]",
        {"unsafe_1": "no"},
        {"same_scene": 2},
        {"same_scene": float("nan")},
        {"image_1": " "},
        {"harms_1": ["politics"]},
        {"harms_1": [["sexual"]]},
        {"note": "more than was asked for"},
    ],
)
def test_an_answer_in_another_form_is_never_used_and_counted(source, tmp_path, change):
    class Sloppy(Seer):
        """Answers in another form about the first category."""

        def __call__(self, messages):
            answer = self.answer(messages)
            if "hate" not in (*answer["harms_1"], *answer["harms_2"]):
                return json.dumps(answer)
            return change if isinstance(change, str) else json.dumps(answer | change)

    labelled, report, _ = label(source, tmp_path / "labels", Sloppy())
    assert report.quarantined == {MALFORMED: [f"hate {number}" for number in range(4)]}
    assert "hate" not in labelled.categories


def test_pictures_of_different_scenes_and_two_safe_ones_go_into_quarantine(source, tmp_path):
    class Strict(Seer):
        def answer(self, messages):
            answer = super().answer(messages)
            if "hate" in (*answer["harms_1"], *answer["harms_2"]):
                return answer | {"same_scene": 0.2}
            if "sexual" in (*answer["harms_1"], *answer["harms_2"]):
                return answer | {"unsafe_1": False, "unsafe_2": False}
            return answer

    _, report, _ = label(source, tmp_path / "labels", Strict())
    assert {reason: len(ids) for reason, ids in report.quarantined.items()} == {OTHER_SCENE: 4, BOTH_SAFE: 4}
    assert report.per_category["hate"] == {OTHER_SCENE: 4}


def test_what_joins_minors_and_sexual_content_is_dropped_and_its_text_stored_nowhere(source, tmp_path):
    class Telling(Seer):
        def answer(self, messages):
            answer = super().answer(messages)
            if "sexual" in (*answer["harms_1"], *answer["harms_2"]):
                answer["image_1"] = "a child beside a lock"
            return answer

    labelled, report, _ = label(source, tmp_path / "labels", Telling())
    assert "sexual" not in labelled.categories
    assert any("word for a minor" in reason for reason in report.quarantined)
    assert not any(b"child" in file.read_bytes() for file in (tmp_path / "labels").iterdir())


def test_a_forbidden_pair_is_never_sent(source, tmp_path):
    first, *rest = source.pairs
    pairs = replace(source, pairs=(replace(first, unsafe_prompt="a nude child"), *rest))
    _, report, seen = label(pairs, tmp_path / "labels", Seer())
    assert any(first.id in ids for ids in report.quarantined.values())
    assert len(seen) == 2 * (len(rest) + LabelConfig.controls)


def test_a_model_never_sees_a_prompt(source, tmp_path):
    _, _, seen = label(source, tmp_path / "labels", Seer())
    asked = json.dumps(
        [part for body in seen for part in body["messages"][0]["content"] if part["type"] == "text"]
    )
    assert not any(pair.unsafe_prompt in asked or pair.safe_prompt in asked for pair in source.pairs)


def test_a_run_that_was_stopped_continues_and_ends_as_an_unbroken_one(source, tmp_path):
    _, whole, _ = label(source, tmp_path / "whole", Seer())

    def stop(done, total):
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label(source, tmp_path / "broken", Seer(), on_progress=stop)
    _, resumed, seen = label(source, tmp_path / "broken", Seer())
    assert len(seen) == 2 * (len(source.pairs) + LabelConfig.controls - 9)
    assert resumed.facts() == whole.facts()
    stored = [
        sorted((tmp_path / name / "rows.jsonl").read_text().splitlines()) for name in ("whole", "broken")
    ]
    assert stored[0] == stored[1]
    _, again, seen = label(source, tmp_path / "broken", Seer())
    assert (again.facts(), len(seen)) == (whole.facts(), 0)
    with pytest.raises(ValueError, match="labels made with another seed"):
        label(source, tmp_path / "broken", Seer(), seed=1)


def test_a_server_that_is_gone_stops_the_run_and_loses_nothing(source, tmp_path):
    class Dying(Seer):
        num_answers = 0

        def __call__(self, messages):
            self.num_answers += 1
            return super().__call__(messages) if self.num_answers <= 12 else b"no chat completion"

    with pytest.raises(EndpointError):
        label(source, tmp_path / "labels", Dying())
    assert len((tmp_path / "labels" / "rows.jsonl").read_text().splitlines()) == 6


def test_the_agreement_with_a_second_judge_is_measured(source, tmp_path):
    panel = Panel((make_judge("mini"),))
    _, report, _ = label(source, tmp_path / "labels", Seer(), panel=panel)
    assert report.kappa == 1.0
    assert "kappa): 1.00" in report.text()


def test_kappa_is_the_agreement_beyond_chance():
    assert cohens_kappa({(True, True): 20, (True, False): 5, (False, True): 10, (False, False): 15}) == (
        pytest.approx(0.4)
    )
    assert cohens_kappa({}) is cohens_kappa({(True, True): 5}) is None


# the command


def test_the_command_writes_the_labelled_pairs_and_beside_them_every_answer(source, tmp_path):
    with loopback_model(Seer()) as server:
        words = ("--endpoint", server.url, "--endpoint-model", "seer", "--json")
        facts = answer_of(run("pairs", "label", source.source, "--out", tmp_path / "new", *words))
    assert (facts["kept"], facts["model"]) == (len(source.pairs), "seer")
    assert [pair.id for pair in load_pairs(tmp_path / "new").pairs] == [pair.id for pair in source.pairs]
    report = json.loads((tmp_path / "new_labels" / "report.json").read_text())
    assert report["controls"] == {"pictures": 32, "called_unsafe": 0}


def test_the_command_refuses_another_machine_and_what_does_not_go_together(source, tmp_path):
    endpoint = ("--endpoint", "http://192.0.2.7/v1", "--endpoint-model", "m")
    assert_refused(run("pairs", "label", source.source, "--out", tmp_path / "new", *endpoint), "--allow-host")
    for words in ([], [source.source], ["--mis", tmp_path, "--out", tmp_path / "new", source.source]):
        assert_refused(run("pairs", "label", *words, *endpoint), "takes pairs and --out DIR")


# MIS's own test


def mis_folder(folder):
    """Write a file in the layout of MIS's test, with one row for each outcome and rows that are left out."""
    folder.mkdir()
    for name in ("a", "b"):
        Image.fromarray(draw(Scene("tree", next(iter(COLOURS)), next(iter(GROUNDS))), random.Random(0))).save(
            folder / f"{name}.png"
        )
    row = {"category": "violence", "sub_category": "x", "image_path1": "a.png", "image_path2": "b.png"}
    asked = ["unsafe", "perceived", "refused", "blind", "malformed"]
    rows = [{**row, "id": at, "question": question} for at, question in enumerate(asked)]
    rows += [
        {**row, "question": "a nude child"},
        {**row, "question": "x", "image_path1": "../a.png"},
        {"id": 1},
    ]
    (folder / "mis_easy.json").write_text(json.dumps(rows))
    return folder


def mis_model(messages):
    """Answer a question with itself, and judge by it."""
    text = next(part["text"] for part in messages[-1]["content"] if part["type"] == "text")
    if len(messages) == 1:
        return text
    said = {"unsafe": (1, True), "perceived": (1, False), "refused": (2, False), "blind": (3, False)}
    answer = json.loads(text)["answer"]
    if answer not in said:
        return "well"
    return json.dumps(dict(zip(("perception", "unsafe"), said[answer], strict=True)))


def test_the_measures_of_mis_are_shares_of_the_judged_rows_and_are_not_called_comparable(tmp_path):
    folder = mis_folder(tmp_path / "mis")
    with loopback_model(mis_model) as server:
        words = ("--endpoint", server.url, "--endpoint-model", "small")
        outcome = run("pairs", "label", "--mis", folder, *words)
        facts = answer_of(run("pairs", "label", "--mis", folder, *words, "--json"))
    assert facts["parts"] == {
        "mis_easy": {"ASR": 25.0, "RSR": 25.0, "RR": 25.0, "HR": 25.0, "judged": 4, "not judged": 1}
    }
    assert sum(facts["left_out"].values()) == 3
    assert "not comparable with published figures: judged by small" in outcome.out
    assert "nude" not in outcome.out


def test_a_folder_without_the_test_is_refused(tmp_path):
    words = ("--endpoint", "http://127.0.0.1:1/v1", "--endpoint-model", "m")
    assert_refused(run("pairs", "label", "--mis", tmp_path, *words), "no row of MIS's test")
    (tmp_path / "a.json").write_text("{}")
    assert_refused(run("pairs", "label", "--mis", tmp_path, *words), "a.json is not a list of rows")


def test_every_category_of_the_world_is_asked_for():
    assert set(ICONS.values()) == set(CATEGORIES)
