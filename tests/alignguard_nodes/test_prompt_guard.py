"""Prompt Guard and its training, without a host: what goes on, what is blocked, and what is shown."""

import pytest
from PIL import Image

from tiny_guards import CONFIG, ENCODER, harmless_prompts, tiny_data
from training.guards import save_guard
from training.guards.train_concept import train_concept_guard

UNSAFE, SAFE, MINOR = "a sword on red", "a spoon on red", "a nude child"


@pytest.fixture(scope="module")
def guard():
    return train_concept_guard(tiny_data(), ENCODER, CONFIG, harmless=harmless_prompts()).guard


@pytest.fixture
def node(node_class, tmp_path, guard):
    """Return the class of Prompt Guard on a host with one guard file and a CLIP that it fits."""
    cls = node_class("prompt_guard")
    host = cls.execute.__func__.__globals__["host"]
    (tmp_path / "guards").mkdir()
    save_guard(guard, tmp_path / "guards" / "mine.safetensors")
    host.guard_path = lambda name: tmp_path / "guards" / name
    host.guard_encoder = lambda clip: ENCODER
    host.Blocked = lambda reason: ("blocked", reason)
    return cls


def ask(node, text, mode="stop", threshold=-1.0, **inputs):
    inputs = {"guard": "mine.safetensors", "clip": "a clip", **inputs}
    return node.execute(text=text, mode=mode, threshold=threshold, **inputs)


def test_a_harmless_prompt_goes_on_unchanged_with_the_safe_strength(node):
    text, blocked, score, strength, report = ask(node, SAFE).values
    assert (text, blocked, strength) == (SAFE, False, 0.0)
    assert -1 <= score <= 1
    assert report.startswith("passed")


def test_a_blocked_prompt_stops_what_follows_and_still_tells_the_strength(node):
    text, blocked, score, strength, report = ask(node, UNSAFE, strength_unsafe=1.5).values
    assert text[0] == "blocked"
    assert (blocked, strength) == (True, 1.5)
    assert "advice, not a guarantee" in report


def test_a_blocked_prompt_can_be_replaced_or_reported(node):
    assert ask(node, UNSAFE, "replace", replacement="a bell").values[:2] == ("a bell", True)
    assert ask(node, UNSAFE, "report").values[:2] == (UNSAFE, True)
    assert ask(node, SAFE, "replace", replacement="a bell").values[0] == SAFE


@pytest.mark.parametrize(
    ("text", "mode", "is_made"),
    [
        (UNSAFE, "replace", True),
        (UNSAFE, "stop", False),
        (SAFE, "replace", False),
        (MINOR, "replace", False),  # nothing takes its place
    ],
)
def test_a_linked_replacement_is_made_only_if_it_takes_the_place_of_a_blocked_prompt(
    node, text, mode, is_made
):
    inputs = {"text": text, "mode": mode, "guard": "mine.safetensors", "threshold": -1.0, "clip": "a clip"}
    assert node.check_lazy_status(replacement=None, **inputs) == (["replacement"] if is_made else [])
    assert node.check_lazy_status(replacement="a bell", **inputs) == []


@pytest.mark.parametrize("mode", ["stop", "report", "replace"])
@pytest.mark.parametrize("threshold", [-1.0, 1.0])
def test_the_rule_on_minors_stops_a_prompt_in_every_mode_at_every_threshold(node, mode, threshold):
    text, blocked, *_ = ask(node, MINOR, mode, threshold, replacement="a bell").values
    assert text[0] == "blocked"
    assert blocked


def test_no_report_repeats_the_prompt_or_a_concept(node):
    for prompt in (UNSAFE, SAFE, MINOR):
        result = ask(node, prompt)
        told = f"{result.values[0][1] if isinstance(result.values[0], tuple) else ''} {result.values[4]}"
        for word in ("sword", "spoon", "red", "nude", "child"):
            assert word not in told.split()
        assert prompt not in str(vars(result.ui))


def test_a_threshold_of_the_person_decides(node):
    assert not ask(node, UNSAFE, threshold=1.0).values[1]
    assert ask(node, SAFE, threshold=-0.99).values[1]


def test_only_the_listed_concepts_are_looked_for(node):
    report = ask(node, UNSAFE, concepts="sword\naxe\n").values[4]
    assert "of 2, violence" in report
    assert "not measured: 1 concepts" in ask(node, UNSAFE, concepts="sword\nkettle").values[4]


def test_a_guard_that_was_just_trained_needs_no_file(node, guard):
    assert ask(node, UNSAFE, guard="none", trained=guard, clip=None).values[1]


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"guard": "none", "mode": "stop"}, "no guard is chosen"),
        ({"guard": "mine.safetensors", "mode": "warn"}, "mode must be one of stop, report, replace"),
        ({"guard": "mine.safetensors", "mode": "replace"}, "mode replace needs a replacement"),
        ({"guard": "mine.safetensors", "mode": "replace", "replacement": MINOR}, "word for a minor"),
        ({"guard": "mine.safetensors", "mode": "stop", "concepts": f"sword\n{MINOR}"}, "word for a minor"),
        ({"guard": "mine.safetensors", "mode": "stop", "strength_unsafe": -1.0}, "strength_unsafe must be"),
    ],
)
def test_what_cannot_work_is_refused_before_the_queue_starts(node, inputs, sentence):
    assert sentence in node.validate_inputs(**inputs)


@pytest.mark.parametrize(
    "inputs", [{"mode": "replace", "replacement": MINOR}, {"mode": "report", "concepts": f"sword\n{MINOR}"}]
)
def test_a_forbidden_text_that_comes_through_a_link_is_refused_when_the_node_runs(node, inputs):
    with pytest.raises(ValueError, match="word for a minor") as refused:
        ask(node, UNSAFE, **inputs)
    assert MINOR not in str(refused.value)


def test_what_can_work_is_accepted(node):
    assert node.validate_inputs("mine.safetensors", "stop") is True
    assert node.validate_inputs("none", "stop", trained=None) is True  # connected
    assert node.validate_inputs(None, None) is True  # both come through links


@pytest.fixture
def trainer(node_class, tmp_path):
    cls = node_class("train_prompt_guard")
    values = cls.execute.__func__.__globals__
    values["host"].guard_encoder = lambda clip: ENCODER
    values["host"].image_tensor = lambda picture: picture
    return cls


TEXT = "\n".join(f"violence: {row.concept} | {row.unsafe} | {row.safe}" for row in tiny_data().rows)
FEW = {"steps": 60, "heads": 2, "head_width": 8, "out_width": 8, "target_fpr": 0.1, "learning_rate": 0.01}


def test_training_saves_a_numbered_file_and_returns_the_guard(trainer, tmp_path):
    result = trainer.execute(TEXT, clip="a clip", harmless="\n".join(harmless_prompts()), **FEW)
    guard, name, report, picture = result.values
    assert name == "guard_00001_.safetensors"
    assert (tmp_path / "output" / "safety_guards" / name).is_file()
    assert guard.look(UNSAFE).blocked
    assert "saved as safety_guards/guard_00001_.safetensors" in report
    assert isinstance(picture, Image.Image)
    assert "sword" not in report


def test_without_harmless_prompts_everyday_ones_set_the_threshold(trainer):
    guard = trainer.execute(TEXT, clip="a clip", **FEW).values[0]
    assert guard.calibration.num_set == 200  # half of those that come with the pack


def test_a_text_without_a_sample_is_refused_unless_pairs_are_connected(trainer):
    assert "no row can train a guard" in trainer.validate_inputs("nothing here")
    assert trainer.validate_inputs("", pairs=None) is True
    assert "inside output/safety_guards" in trainer.validate_inputs(TEXT, filename_prefix="../x")
