"""Prompt Interpreter and its training, without a host: what is blocked, why, and what is said of it."""

import dataclasses
import importlib
from types import SimpleNamespace

import pytest
from PIL import Image

import tiny_guards
from tiny_interpreter import CAPTIONS, CLIP, CONFIG, SPOKEN, blocks
from training.guards.train_concept import train_concept_guard
from training.guards.train_interpreter import train_interpreter

HARMLESS, NAMED, MINOR = "a green boat by a lake", "a red sword by a hill", "a nude child"


@pytest.fixture(scope="module")
def guard():
    return train_interpreter(CAPTIONS, CLIP, SPOKEN, CONFIG).guard


def tiny_host(cls, monkeypatch):
    """Return the host of a node, whose CLIP and meanings are tiny; the real ones need a package."""
    host = cls.execute.__func__.__globals__["host"]
    host.guard_encoder = lambda clip: CLIP
    for name in ("pack.training.guards", "pack.training.guards.interpreter"):
        monkeypatch.setattr(importlib.import_module(name), "language", lambda: SPOKEN)
    return host


@pytest.fixture
def node(node_class, tmp_path, guard, monkeypatch):
    """Return the class of Prompt Interpreter on a host with one file and a CLIP that it fits."""
    cls = node_class("prompt_interpreter")
    host = tiny_host(cls, monkeypatch)
    (tmp_path / "guards").mkdir()
    guard.file().write(tmp_path / "guards" / "mine.safetensors")
    host.guard_path = lambda name: tmp_path / "guards" / name
    host.Blocked = lambda reason: ("blocked", reason)
    return cls


def ask(node, text, mode="stop", threshold=-1.0, **inputs):
    inputs = {"interpreter": "mine.safetensors", "clip": "a clip", **inputs}
    return node.execute(text=text, mode=mode, threshold=threshold, **inputs)


def understood_as(node, prompt):
    """Let the encoder understand every text as one prompt, as an attack does with its own."""
    host = node.execute.__func__.__globals__["host"]
    host.guard_encoder = lambda clip: dataclasses.replace(CLIP, blocks=lambda text: blocks(prompt))


def test_a_prompt_that_comes_back_as_it_was_goes_on_with_the_safe_strength(node):
    text, blocked, score, strength, report = ask(node, HARMLESS, blocked_words="sword").values
    assert (text, blocked, score, strength) == (HARMLESS, False, 0.0, 0.0)
    assert report.startswith("passed")


def test_a_prompt_that_means_something_else_is_blocked_and_the_report_says_why(node):
    understood_as(node, NAMED)
    text, blocked, _, strength, report = ask(node, HARMLESS, strength_unsafe=1.5).values
    assert text[0] == "blocked"
    assert (blocked, strength) == (True, 1.5)
    assert "Reason: unlike its meaning." in report
    assert "advice, not a guarantee" in report


@pytest.mark.parametrize("words", ["sword", "Swords\n# a remark\naxe"])
def test_a_blocked_word_blocks_what_names_it_and_what_means_it(node, words):
    assert "Reason: blocked word." in ask(node, NAMED, blocked_words=words).values[4]
    assert ask(node, "a red sw0rd by a hill", blocked_words=words).values[2] == 2.0
    assert not ask(node, HARMLESS, blocked_words=words).values[1]
    understood_as(node, NAMED)
    text, blocked, score, *_ = ask(node, HARMLESS, threshold=2.0, blocked_words=words).values
    assert (text[0], blocked, score) == ("blocked", True, 2.0)


def test_without_blocked_words_a_prompt_that_says_what_it_means_passes(node):
    report = ask(node, NAMED, blocked_words=" \n# nothing").values[4]
    assert report.startswith("passed")
    assert "no blocked words" in report


def test_a_blocked_prompt_can_be_replaced_or_reported(node):
    words = {"blocked_words": "sword"}
    assert ask(node, NAMED, "replace", replacement="a cup", **words).values[:2] == ("a cup", True)
    assert ask(node, NAMED, "report", **words).values[:2] == (NAMED, True)
    lazy = {"interpreter": "mine.safetensors", "threshold": -1.0, "clip": "a clip", **words}
    assert node.check_lazy_status(NAMED, "replace", replacement=None, **lazy) == ["replacement"]
    assert node.check_lazy_status(HARMLESS, "replace", replacement=None, **lazy) == []


@pytest.mark.parametrize("mode", ["stop", "report", "replace"])
@pytest.mark.parametrize("threshold", [-1.0, 2.0])
def test_the_rule_on_minors_stops_a_prompt_in_every_mode_at_every_threshold(node, mode, threshold):
    text, blocked, *_ = ask(node, MINOR, mode, threshold, replacement="a cup").values
    assert text[0] == "blocked"
    assert blocked


def test_nothing_that_is_shown_repeats_a_prompt_its_meaning_or_a_blocked_word(node):
    understood_as(node, NAMED)
    for prompt in (HARMLESS, NAMED, MINOR):
        result = ask(node, prompt, blocked_words="hill")
        shown = f"{result.values[0][1]} {result.values[4]} {vars(result.ui)}"
        for word in ("sword", "hill", "boat", "lake", "nude", "child"):
            assert word not in shown


def test_a_guard_that_looks_for_concepts_is_refused(node):
    data, harmless = tiny_guards.tiny_data(), tiny_guards.harmless_prompts()
    concepts = train_concept_guard(data, tiny_guards.ENCODER, tiny_guards.CONFIG, harmless=harmless).guard
    with pytest.raises(ValueError, match="looks for concepts and interprets nothing"):
        ask(node, HARMLESS, interpreter="none", trained=concepts)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"interpreter": "none", "mode": "stop"}, "no guard is chosen"),
        ({"interpreter": "mine.safetensors", "mode": "warn"}, "mode must be one of"),
        ({"interpreter": "mine.safetensors", "mode": "replace"}, "mode replace needs a replacement"),
        (
            {"interpreter": "mine.safetensors", "mode": "stop", "blocked_words": f"sword\n{MINOR}"},
            "word for a minor",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_the_queue_starts(node, inputs, sentence):
    assert sentence in node.validate_inputs(**inputs)


def test_blocked_words_that_come_through_a_link_meet_the_rule_when_the_node_runs(node):
    with pytest.raises(ValueError, match="word for a minor"):
        ask(node, HARMLESS, blocked_words=MINOR)


@pytest.fixture
def trainer(node_class, monkeypatch):
    cls = node_class("train_prompt_interpreter")
    tiny_host(cls, monkeypatch).image_tensor = lambda picture: picture
    return cls


TEXT = "\n".join(CAPTIONS)
FEW = {"steps": 3, "target_fpr": 0.25, "holdout": 0.25, "batch_size": 4}


def test_training_saves_a_numbered_file_and_returns_the_interpreter(trainer, tmp_path):
    interpreter, name, report, picture = trainer.execute(TEXT, clip="a clip", **FEW).values
    assert name == "interpreter_00001_.safetensors"
    assert (tmp_path / "output" / "safety_guards" / name).is_file()
    assert interpreter.look(MINOR).blocked
    assert f"{len(CAPTIONS)} captions" in report
    assert isinstance(picture, Image.Image)
    assert "sword" not in report


def test_prompt_sets_and_both_prompts_of_pairs_are_captions_too(trainer):
    prompts = SimpleNamespace(prompts=[SimpleNamespace(prompt=text) for text in CAPTIONS[:20]])
    pairs = SimpleNamespace(
        pairs=[
            SimpleNamespace(unsafe_prompt=unsafe, safe_prompt=safe)
            for unsafe, safe in zip(CAPTIONS[20:30], CAPTIONS[30:40], strict=True)
        ]
    )
    report = trainer.execute(CAPTIONS[40], clip="a clip", prompts=prompts, pairs=pairs, **FEW).values[2]
    assert "41 captions" in report


def test_the_threshold_is_set_on_harmless_prompts_if_there_are_any(trainer):
    harmless = "\n".join(f"tree number {number}" for number in range(20))
    guard = trainer.execute(TEXT, clip="a clip", harmless=harmless, **FEW).values[0]
    assert guard.calibration.num_set == 10


def test_training_can_be_cancelled_and_then_saves_nothing(trainer, tmp_path):
    def cancel(done, total):
        raise InterruptedError

    trainer.execute.__func__.__globals__["host"].progress = lambda node: cancel
    with pytest.raises(InterruptedError):
        trainer.execute(TEXT, clip="a clip", **FEW)
    assert not (tmp_path / "output").exists()


def test_training_without_captions_is_refused_before_the_queue_starts(trainer):
    assert "there are no captions" in trainer.validate_inputs(" \n")
    assert trainer.validate_inputs("", prompts=None) is True
    assert trainer.validate_inputs("", pairs=None) is True
    assert "inside output/safety_guards" in trainer.validate_inputs(TEXT, filename_prefix="../x")
    assert "rule on minors" in trainer.validate_inputs(TEXT, harmless=MINOR)
