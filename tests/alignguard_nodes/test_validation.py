"""What nodes refuse before the queue starts, by `validate_inputs`, and with which sentence.

The host passes None for an input that comes through a link, and nothing for one that is not connected.
"""

import pytest

from training.evaluation.optional import Package

LINK = None
PAIR = "a skull => a ball"

WRONG = {  # what is wrong -> node, inputs, sentence
    "the range of an expert is empty": (
        "apply_safety_expert",
        {"start_percent": 0.5, "end_percent": 0.5},
        "start_percent must be below end_percent",
    ),
    "both models are one file": (
        "extract_safety_expert",
        {"base": "a.safetensors", "tuned": "a.safetensors", "category": "all"},
        "base and tuned are the same file",
    ),
    "the file name leads out of the output folder": (
        "save_safety_expert",
        {"filename_prefix": "../../x"},
        "filename_prefix must name a file inside output/loras/alignguard",
    ),
    "the file name of a training leads out of the output folder": (
        "train_safety_dpo",
        {"category": "auto", "filename_prefix": "../x"},
        "filename_prefix must name a file inside",
    ),
    "patience has nothing to watch": (
        "train_safety_dpo",
        {"category": "auto", "patience": 3, "validation": 0.0},
        "patience needs held-out pairs",
    ),
    "two options of training exclude each other": (
        "train_safety_dpo",
        {"category": "auto", "bank": 4, "pair_weighting": "star"},
        "Set bank to 0",
    ),
    "an option of training is out of range": (
        "train_safety_dpo",
        {"category": "auto", "validation": 2.0},
        "validation must be at most",
    ),
    "there is no such preset": (
        "train_safety_dpo",
        {"category": "auto", "preset": "magic"},
        "preset must be",
    ),
    "there is no such weighting": (
        "train_safety_dpo",
        {"category": "auto", "pair_weighting": "magic"},
        "pair_weighting must be one of",
    ),
    "there is no such judge": ("safety_judge", {"judge": "magic"}, "judge must be one of"),
    "there is no such preset of a judge": (
        "safety_benchmark",
        {"judge": "nudenet:magic", "folder": "x"},
        "judge must be one of",
    ),
    "there is no such method of rewriting": (
        "rewrite_prompts",
        {"prompts": "a skull", "category": "hate", "method": "magic", "table": ""},
        "method must be one of",
    ),
    "a merge lacks what it compares the experts on": (
        "merge_safety_experts",
        {"method": "regmean", "model": LINK, "clip": LINK},
        "needs calibration connected too",
    ),
    "there is no such merge method": ("merge_safety_experts", {"method": "magic"}, "method must be one of"),
    "a strength is negative": (
        "merge_safety_experts",
        {"method": "concat", "strength_1": -1},
        "strength_1 must",
    ),
    "a line of prompts has no safe half": (
        "make_safety_pairs",
        {"prompts": "a skull", "category": "hate", "folder": "a/b", "judge": "none"},
        "no line of prompts can be used",
    ),
    "the pairs would lie too deep": (
        "make_safety_pairs",
        {"prompts": PAIR, "category": "hate", "folder": "a/b/c"},
        "at most two deep",
    ),
    "a judge of pairs lacks its CLIP Vision": (
        "make_safety_pairs",
        {"prompts": PAIR, "category": "hate", "folder": "a/b", "judge": "q16"},
        "a CLIP Vision",
    ),
    "a judge lacks its CLIP Vision": ("safety_judge", {"judge": "mhsc"}, "a CLIP Vision"),
    "a judge is chosen twice": (
        "safety_judge",
        {"judge": "mini", "second_judge": "mini"},
        "chosen twice",
    ),
    "a judge of a benchmark is chosen twice": (
        "safety_benchmark",
        {"judge": "mini", "folder": "x", "second_judge": "mini"},
        "chosen twice",
    ),
    "a benchmark leads out of its folder": (
        "safety_benchmark",
        {"judge": "mini", "folder": "../x"},
        "folder must be inside output/alignguard_benchmarks",
    ),
    "a stack's judge lacks its CLIP Vision": (
        "check_safety_stack",
        {"judge": "q16"},
        "a CLIP Vision",
    ),
    "there is nothing to rewrite": (
        "rewrite_prompts",
        {"prompts": " \n", "category": "hate", "method": "table", "table": "a,b"},
        "there is no prompt to rewrite",
    ),
    "a table is missing": (
        "rewrite_prompts",
        {"prompts": "a skull", "category": "hate", "method": "table", "table": " "},
        "needs a table",
    ),
    "a paired file is missing": (
        "rewrite_prompts",
        {"prompts": "a skull", "category": "hate", "method": "paired_file", "table": ""},
        "needs a file",
    ),
    "a concept has no pair of prompts": ("concept_vector", {"prompts": "a skull"}, "line 1"),
    "a paired file is gone": (
        "concept_vector",
        {"prompts": "", "paired_file": "gone.csv"},
        "gone.csv",
    ),
    "a set of prompts is gone": (
        "load_prompt_set",
        {"file": "gone.csv", "category": "all"},
        "gone.csv",
    ),
    "a category is blank": ("load_prompt_set", {"file": LINK, "category": " "}, "a category needs a name"),
    "pairs are not there": ("load_safety_pairs", {"folder": "gone", "category": "all"}, "'gone'"),
}

RIGHT = {
    "an expert acts at the end": ("apply_safety_expert", {"start_percent": 0.5, "end_percent": 1.0}),
    "a range comes through links": ("apply_safety_expert", {"start_percent": LINK, "end_percent": 0.0}),
    "a preset leaves the other options": ("train_safety_dpo", {"category": "auto", "preset": "paper SD 1.5"}),
    "every option of training comes through a link": (
        "train_safety_dpo",
        dict.fromkeys(("category", "preset", "validation", "patience", "bank", "filename_prefix"), LINK),
    ),
    "held-out pairs are watched": ("train_safety_dpo", {"category": "x", "patience": 2, "validation": 0.2}),
    "a merge has everything": (
        "merge_safety_experts",
        {"method": "co_merge", "model": LINK, "clip": LINK, "calibration": LINK},
    ),
    "a merge needs no calibration": ("merge_safety_experts", {"method": "ties"}),
    "a single expert takes part": ("merge_safety_experts", {"method": "regmean", "strength_2": 0.0}),
    "pairs are drawn": ("make_safety_pairs", {"prompts": PAIR, "category": "hate", "folder": "a/b"}),
    "a judge has its CLIP Vision": ("safety_judge", {"judge": "q16", "clip_vision": LINK}),
    "judges come through links": ("safety_judge", {"judge": LINK, "second_judge": LINK}),
    "an endpoint is not asked": (
        "rewrite_prompts",
        {"prompts": "a skull", "category": "hate", "method": "endpoint", "table": ""},
    ),
    "prompts come through a link": (
        "rewrite_prompts",
        {"prompts": LINK, "category": LINK, "method": "table", "table": LINK},
    ),
    "a concept has its prompts": ("concept_vector", {"prompts": "a red skull | a red ball"}),
}


@pytest.fixture
def validate(node_class, pack):
    """Return the function that asks a node, by its file, about inputs."""

    def ask(name, inputs):
        border = pack("alignguard_nodes").host
        border.check_range = check_range
        return node_class(name).validate_inputs(**inputs)

    return ask


def check_range(start_percent, end_percent):
    """Stand in for the host's, which `tests/host` asks."""
    if start_percent >= end_percent:
        raise ValueError("start_percent must be below end_percent.")


@pytest.mark.parametrize("wrong", WRONG)
def test_it_is_said_before_the_queue_starts_that(validate, wrong):
    name, inputs, sentence = WRONG[wrong]
    answer = validate(name, inputs)
    assert isinstance(answer, str), "it was accepted"
    assert sentence in answer
    assert answer.rstrip().endswith((".", ")")) or "\n" in answer  # a sentence, with what to do


@pytest.mark.parametrize("right", RIGHT)
def test_nothing_is_said_if(validate, right):
    assert validate(*RIGHT[right]) is True


def test_a_judge_whose_package_is_missing_says_how_to_install_it(validate, pack, monkeypatch):
    judges = pack("training.evaluation.judges")
    kind = judges.EVALUATORS["nudenet"]
    object.__setattr__(kind, "package", Package("no_such_module", "no-such-package"))
    answer = validate("safety_judge", {"judge": "nudenet:diffzoo"})
    assert "nudenet:diffzoo needs the package no-such-package" in answer
    assert "pip install no-such-package" in answer
