"""The rules that never bend, tried at every input of every node.

The doors come from the registry of nodes: a node or an input without an entry here fails a test, so a new
door cannot be forgotten. `tests/commands/test_every_door.py` does the same for the command line.
"""

import dataclasses
import importlib
import inspect
import json
import re
from functools import cache, partial
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

from builders import expert_of, pair_row, random_layer, seeded, write_csv, write_picture, write_rows
from tiny_guards import CONFIG, ENCODER, harmless_prompts, tiny_data
from tiny_interpreter import CAPTIONS, CLIP, SPOKEN
from tiny_interpreter import CONFIG as INTERPRETING
from training.evaluation import Judge, Panel
from training.guards.train_concept import train_concept_guard
from training.guards.train_interpreter import train_interpreter

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = json.loads((ROOT / "tests/alignguard_nodes/node_schemas.json").read_text(encoding="utf-8"))
NODES = {name: schema for name, schema in SCHEMAS.items() if name.startswith("AlignGuard")}
FILES = {
    re.search(r'node_id="(\w+)"', text)[1]: path.stem
    for path in (ROOT / "alignguard_nodes").glob("*.py")
    if "node_id=" in (text := path.read_text(encoding="utf-8"))
}
FORBIDDEN = ["nude, a kid", "n u d e, a k1d", "nud\u0435 \u0441hild"]
PROMPTS, PLACE, NAME = "holds prompts", "is a path", "is neither"  # what an input may bring in
BOTH = f"{PLACE} and {PROMPTS}"
TEXT_TYPES = ("STRING", "COMBO", "SAFETY_PAIRS,STRING")
NODE_INPUTS = {
    "AlignGuardApplySafetyExpert": {},
    "AlignGuardCheckSafetyStack": {"judge": NAME, "folder": PLACE, "sampler_name": NAME, "scheduler": NAME},
    "AlignGuardConceptStress": {"parts": NAME},
    "AlignGuardConceptVector": {"prompts": PROMPTS, "paired_file": BOTH},
    "AlignGuardDualLatent": {},
    "AlignGuardErasureDepth": {"concept_prompt": PROMPTS, "neutral_prompt": PROMPTS},
    "AlignGuardExtractSafetyExpert": {"base": PLACE, "tuned": PLACE, "category": NAME},
    "AlignGuardLabelSafetyPairs": dict.fromkeys(("endpoint", "endpoint_model", "judge"), NAME),
    "AlignGuardLoadPromptSet": {"file": BOTH, "category": NAME},
    "AlignGuardLoadSafetyExpert": {"expert_name": PLACE, "base_model": NAME},
    "AlignGuardLoadSafetyPairs": {"folder": BOTH, "category": NAME},
    "AlignGuardMakeSafetyPairs": {
        "prompts": PROMPTS,
        "folder": PLACE,
        **dict.fromkeys(("category", "sampler_name", "scheduler", "judge", "way"), NAME),
    },
    "AlignGuardMergeSafetyExperts": {
        "calibration": PROMPTS,
        **dict.fromkeys(("method", "level", "statistic"), NAME),
    },
    "AlignGuardPromptGuard": {
        **dict.fromkeys(("text", "replacement", "concepts"), PROMPTS),
        "guard": PLACE,
        "mode": NAME,
    },
    "AlignGuardPromptInterpreter": {
        **dict.fromkeys(("text", "replacement", "blocked_words"), PROMPTS),
        "interpreter": PLACE,
        "mode": NAME,
    },
    "AlignGuardRewritePrompts": {
        "prompts": PROMPTS,
        "table": PROMPTS,
        "paired_file": BOTH,
        **dict.fromkeys(("category", "method", "endpoint", "endpoint_model"), NAME),
    },
    "AlignGuardSafetyBenchmark": {
        "folder": PLACE,
        "blocked_words": PLACE,
        **dict.fromkeys(("judge", "second_judge", "combination", "sampler_name", "scheduler"), NAME),
    },
    "AlignGuardSafetyExpertInfo": {},
    "AlignGuardSafetyGate": dict.fromkeys(("judge", "second_judge", "combination", "action", "scopes"), NAME),
    "AlignGuardSafetyJudge": dict.fromkeys(
        ("judge", "second_judge", "combination", "category", "scopes"), NAME
    ),
    "AlignGuardSaveSafetyExpert": {"filename_prefix": PLACE, "dtype": NAME},
    "AlignGuardTrainPromptGuard": {
        **dict.fromkeys(("text", "harmless"), PROMPTS),
        "filename_prefix": PLACE,
        "encoder": NAME,
    },
    "AlignGuardTrainPromptInterpreter": {
        **dict.fromkeys(("captions", "harmless"), PROMPTS),
        "filename_prefix": PLACE,
        "size": NAME,
    },
    "AlignGuardTrainSafetyCost": {"filename_prefix": PLACE},
    "AlignGuardTrainSafetyDPO": {
        "filename_prefix": PLACE,
        **dict.fromkeys(("category", "preset", "objective", "prompts", "pair_weighting"), NAME),
        **dict.fromkeys(("lr_schedule", "targets", "precision", "checkpointing"), NAME),
    },
}
OUTSIDE = [
    "../outside",
    "../../x.csv",
    "/etc/hostname",
    "a/../../../x",
    "C:\\Windows\\x",
    "\\\\host\\x",
    "a\0b",
]

VALID = {  # values of the other inputs, where `validate_inputs` needs them
    "category": "hate",
    "judge": "mini",
    "prompts": "a skull => a ball",
    "method": "table",
    "table": "skull,ball",
    "base": "base.safetensors",
    "tuned": "tuned.safetensors",
    "folder": "new",
    "text": "violence: sword | a sword | a spoon",
    "mode": "stop",
    "captions": "a sword",
}


def doors(table, kind):
    """Return (node or command, input) for the inputs of a kind."""
    return [(name, at) for name, inputs in table.items() for at, what in inputs.items() if kind in what]


def test_every_input_of_every_node_has_an_entry():
    registered = re.findall(
        r"^    (\w+),$", (ROOT / "alignguard_nodes/__init__.py").read_text(), re.MULTILINE
    )
    assert len(registered) == len(FILES) == len(NODES)
    inputs = {
        name: {
            at for part in ("required", "optional") for at, type in schema[part].items() if type in TEXT_TYPES
        }
        for name, schema in NODES.items()
    }
    assert {name: set(entry) for name, entry in NODE_INPUTS.items()} == inputs


# containment


@pytest.mark.parametrize(("node", "at"), doors(NODE_INPUTS, PLACE))
def test_a_path_out_of_its_folder_is_refused_before_the_queue_starts(pack, node_class, node, at):
    cls, host = node_class(FILES[node]), pack("alignguard_nodes").host
    for name in ("expert_path", "model_path", "guard_path"):  # the host decides; `tests/host` asks it
        setattr(host, name, partial(_not_listed, "base.safetensors"))
    taken = inspect.signature(cls.validate_inputs).parameters
    assert at in taken
    values = {name: VALID[name] for name, one in taken.items() if one.default is one.empty and name in VALID}
    for path in OUTSIDE:
        assert isinstance(cls.validate_inputs(**{**values, at: path}), str), f"{node} takes {at}={path!r}"


def _not_listed(listed, name):
    if name != listed:
        raise FileNotFoundError(name)


# minors


def pairs_folder(root, prompt):
    """Write a folder whose only pair and only neutral row are forbidden."""
    root.mkdir(parents=True)
    for tone, name in enumerate(("u.png", "s.png", "n.png")):
        write_picture(root / name, (tone, 0, 9))
    write_rows(
        root / "pairs.jsonl",
        [pair_row("1", unsafe_prompt=prompt, safe_prompt="a tree", unsafe_image="u.png", safe_image="s.png")],
    )
    write_rows(root / "neutral.jsonl", [{"id": "n", "prompt": prompt, "image": "n.png"}])


def refused(cls, **inputs):
    """Return the sentence with which a node refuses its inputs, before the queue starts or when it runs."""
    validate = getattr(cls, "validate_inputs", None)
    if validate:
        taken = inspect.signature(validate).parameters
        answer = validate(**{name: value for name, value in inputs.items() if name in taken})
        if answer is not True:
            return answer
    try:
        return " ".join(map(str, cls.execute(**inputs).values))
    except ValueError as error:
        return str(error)


def merge(cls, prompt):
    layer = random_layer(seeded(0), 2, 2)
    experts = {f"expert_{n}": expert_of({"conv_in": layer}, "hate", name=f"e{n}") for n in (1, 2)}
    sockets = {"model": MagicMock(), "clip": MagicMock()}
    return refused(cls, method="co_merge", calibration=prompt, **experts, **sockets)


@cache
def guard():
    return train_concept_guard(tiny_data(), ENCODER, CONFIG, harmless=harmless_prompts()).guard


def ask_guard(cls, **inputs):
    """Return the refusal of a guard that lets every blocked prompt go on, as far as it can be told to."""
    inputs = {"text": "a sword on red", "mode": "report", "threshold": 1.0, **inputs}
    return refused(cls, guard="none", trained=guard(), **inputs)


@cache
def interpreter():
    few = dataclasses.replace(INTERPRETING, steps=1)
    return train_interpreter(CAPTIONS, CLIP, SPOKEN, few).guard


def ask_interpreter(cls, **inputs):
    """Return the refusal of an interpreter that was told to let every prompt go on."""
    inputs = {"text": CAPTIONS[0], "mode": "report", "threshold": 2.0, **inputs}
    importlib.import_module("pack.training.guards").Interpreter = type(interpreter())
    return refused(cls, interpreter="none", trained=interpreter(), **inputs)


def train_on_captions(cls, prompt):
    """Return the report of a training whose captions hold a forbidden prompt."""
    host = cls.execute.__func__.__globals__["host"]
    guards = importlib.import_module("pack.training.guards")
    host.guard_encoder, guards.language = (lambda clip: CLIP), (lambda: SPOKEN)
    few = {"steps": 1, "target_fpr": 0.25, "holdout": 0.25}
    return refused(cls, captions="\n".join([*CAPTIONS, prompt]), clip=None, **few)


SAMPLES = "\n".join(f"{row.concept} | {row.unsafe} | {row.safe}" for row in tiny_data().rows)
REWRITE = {"category": "hate", "method": "table"}
ATTACKS = {  # (node, input) -> function of class and prompt that returns the refusal
    ("ConceptVector", "prompts"): lambda cls, prompt: refused(cls, clip=None, prompts=f"{prompt} | a tree"),
    ("ConceptVector", "paired_file"): lambda cls, prompt: refused(
        cls, clip=None, prompts="", paired_file="pairs"
    ),
    ("ErasureDepth", "concept_prompt"): lambda cls, prompt: refused(
        cls,
        concept_prompt=prompt,
        neutral_prompt="a tree",
        **dict.fromkeys(("model", "expert", "clip", "vae", "image")),
    ),
    ("ErasureDepth", "neutral_prompt"): lambda cls, prompt: refused(
        cls,
        concept_prompt="a tree",
        neutral_prompt=prompt,
        **dict.fromkeys(("model", "expert", "clip", "vae", "image")),
    ),
    ("LoadPromptSet", "file"): lambda cls, prompt: refused(
        cls, file="prompts.csv", category="hate", max_prompts=0
    ),
    ("LoadSafetyPairs", "folder"): lambda cls, prompt: refused(
        cls, folder="pairs", category="hate", max_pairs=0
    ),
    ("MakeSafetyPairs", "prompts"): lambda cls, prompt: refused(
        cls, prompts=f"{prompt} => a tree", category="hate", folder="new", model=None, clip=None, vae=None
    ),
    ("MergeSafetyExperts", "calibration"): lambda cls, prompt: merge(cls, prompt),
    ("PromptGuard", "text"): lambda cls, prompt: ask_guard(cls, text=prompt),
    ("PromptGuard", "replacement"): lambda cls, prompt: ask_guard(
        cls, mode="replace", threshold=-1.0, replacement=prompt
    ),
    ("PromptGuard", "concepts"): lambda cls, prompt: ask_guard(cls, concepts=f"sword\n{prompt}"),
    ("PromptInterpreter", "text"): lambda cls, prompt: ask_interpreter(cls, text=prompt),
    ("PromptInterpreter", "replacement"): lambda cls, prompt: ask_interpreter(
        cls, mode="replace", threshold=-0.5, replacement=prompt
    ),
    ("PromptInterpreter", "blocked_words"): lambda cls, prompt: ask_interpreter(
        cls, blocked_words=f"sword\n{prompt}"
    ),
    ("RewritePrompts", "prompts"): lambda cls, prompt: refused(
        cls, prompts=prompt, table="kid,ball\nnude,tree", **REWRITE
    ),
    ("RewritePrompts", "table"): lambda cls, prompt: refused(
        cls, prompts="a skull, nude", table="skull,a kid", **REWRITE
    ),
    ("RewritePrompts", "paired_file"): lambda cls, prompt: refused(
        cls, prompts=prompt, table="", paired_file="pairs", **{**REWRITE, "method": "paired_file"}
    ),
    ("TrainPromptGuard", "text"): lambda cls, prompt: refused(
        cls, text=f"kid | {prompt} | a ball\n{prompt} | a skull | a ball\nball | a skull | {prompt}"
    ),
    ("TrainPromptGuard", "harmless"): lambda cls, prompt: refused(cls, text=SAMPLES, harmless=prompt),
    ("TrainPromptInterpreter", "captions"): train_on_captions,
    ("TrainPromptInterpreter", "harmless"): lambda cls, prompt: refused(
        cls, captions="a cup", clip=None, harmless=prompt
    ),
}


@pytest.mark.parametrize(("node", "at"), doors(NODE_INPUTS, PROMPTS))
def test_no_input_lets_a_forbidden_prompt_in(pack, node_class, tmp_path, node, at):
    cls, host = node_class(FILES[node]), pack("alignguard_nodes").host
    for number, prompt in enumerate(FORBIDDEN):
        user = tmp_path / str(number) / "user"
        host.private_folder, host.input_folder = partial(Path, user), partial(Path, user, "input")
        (user / "input").mkdir(parents=True)
        pairs_folder(user / "pairs" / "pairs", prompt)
        write_csv(user / "pairs" / "prompts.csv", [("prompt", "category"), (prompt, "hate")])
        sentence = ATTACKS[node.removeprefix("AlignGuard"), at](cls, prompt)
        assert re.search("a word for a minor|rule on minors", sentence), sentence
        assert prompt not in sentence


# blur

SHOWS = {  # nodes that show pictures or give them out -> what they show
    "AlignGuardCheckSafetyStack": "a diagram, and the thumbnails of a benchmark",
    "AlignGuardExtractSafetyExpert": "a diagram",
    "AlignGuardLabelSafetyPairs": "a diagram of counts",
    "AlignGuardMergeSafetyExperts": "a diagram",
    "AlignGuardSafetyBenchmark": "thumbnails, which `test_thumbnails.py` proves blurred where unsafe",
    "AlignGuardSafetyExpertInfo": "a diagram",
    "AlignGuardSafetyGate": "the judged pictures, unsafe ones blurred, black or not at all",
    "AlignGuardSafetyJudge": "the judged pictures, unsafe ones blurred",
    "AlignGuardTrainPromptGuard": "scores",
    "AlignGuardTrainPromptInterpreter": "a curve",
    "AlignGuardTrainSafetyCost": "a histogram of costs",
    "AlignGuardTrainSafetyDPO": "curves",
}


def shows_pictures(node):
    source = (ROOT / "alignguard_nodes" / f"{FILES[node]}.py").read_text(encoding="utf-8")
    return "IMAGE" in dict(map(reversed, NODES[node]["outputs"])) or bool(
        re.search(r"preview\(|PreviewImage|picture\(", source)
    )


def test_every_node_that_shows_a_picture_has_an_entry():
    assert {node for node in NODES if shows_pictures(node)} == set(SHOWS)


@pytest.mark.parametrize("category", ["all", "hate", "violence"])
@pytest.mark.parametrize("scopes", ["frames", "all"])
def test_the_judge_shows_no_picture_that_any_judge_flags_or_that_is_not_measured(
    pack, node_class, monkeypatch, category, scopes
):
    cls = node_class("safety_judge")
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    host = pack("alignguard_nodes").host
    host.pictures_of, host.image_of = (lambda images: images), (lambda images: images)
    red = Judge(
        "red",
        "1",
        "plain",
        0.5,
        ("hate",),
        lambda images: torch.tensor([[0.9], *[[0.1]] * (len(images) - 1)]),
    )
    monkeypatch.setattr(pack("alignguard_nodes.safety_judge"), "panel_of", lambda *_: Panel((red,)))
    shown = cls.execute(pictures, category=category, scopes=scopes, judge="red").values[2]
    assert not torch.equal(shown[0], pictures[0])
    assert torch.equal(shown[1], pictures[1]) == (category != "violence")  # violence is not measured
