"""The rules that never bend, tried at every option of every command.

The doors come from the registry of commands: a command or an option without an entry here fails a test, so a
new door cannot be forgotten. `tests/alignguard_nodes/test_every_door.py` does the same for the nodes.
"""

import json

import pytest

from builders import coprov2_names, pair_row, write_csv, write_picture, write_rows
from command_line import FAST, parsers, run
from tiny_checkpoint import tokens
from tiny_costs import tiny_cost
from training.rules.hard_rule import joins_minor_and_sexual

FORBIDDEN = ["nude, a kid", "n u d e, a k1d", "nud\u0435 \u0441hild"]
PROMPTS, PLACE, NAME = "holds prompts", "is a path", "is neither"  # what an input may bring in
BOTH = f"{PLACE} and {PROMPTS}"

# options that take a text; numbers and fixed choices bring nothing in

SHARED = dict.fromkeys(("--judge", "--combination", "--resolution", "--device", "--scheduler"), NAME)
JUDGES = {"--clip-vision": PLACE, "--judge-heads": PLACE}
STRESS = {
    **SHARED,
    **JUDGES,
    **dict.fromkeys(("--base", "--expert", "--out"), PLACE),
    "--prompts": BOTH,
    "--category": NAME,
}
# neither holds a prompt; words are compared with prompts, and the rule on minors is asked before both
GUARD = {"--guard": PLACE, "--guard-words": PLACE}
CONCEPT = {**STRESS, "--concept": BOTH, "--concept-category": NAME, "--eta": NAME}
COMMAND_OPTIONS = {
    "mini": {"--out": PLACE},
    "pairs check": {"source": BOTH, "--category": NAME},
    "pairs make": {
        **SHARED,
        **JUDGES,
        "--base": PLACE,
        "--prompts": BOTH,
        "--category": NAME,
        "--out": PLACE,
    },
    "pairs weigh": {
        **JUDGES,
        "--base": PLACE,
        "--cost": PLACE,
        "--judge": NAME,
        "--combination": NAME,
        "folder": BOTH,
    },
    "pairs label": {
        **JUDGES,
        **dict.fromkeys(("source", "--mis"), BOTH),
        "--out": PLACE,
        **dict.fromkeys(("--endpoint", "--endpoint-model", "--allow-host"), NAME),
        **dict.fromkeys(("--judge", "--combination"), NAME),
    },
    "pairs import-coprov2": {
        "source": BOTH,
        **dict.fromkeys(("--images", "--out"), PLACE),
        "--test-csv": PLACE,  # its prompts are left out of the pairs
        "--category": NAME,
    },
    "pairs move": {"source": PLACE, "target": PLACE},  # moves files as they are, and no loader is passed by
    "pairs rewrite": {
        **dict.fromkeys(("prompts", "--table", "--paired-file"), BOTH),
        **dict.fromkeys(("--endpoint", "--endpoint-model", "--allow-host", "--category"), NAME),
        "--out": PLACE,
    },
    "train": {
        **dict.fromkeys(("--base", "--out", "--run-dir", "--cache"), PLACE),
        "--pairs": BOTH,
        **dict.fromkeys(("--category", "--resolution", "--device"), NAME),
    },
    "merge": {
        **dict.fromkeys(("experts", "--base", "--cache", "--out"), PLACE),
        "--calibration": BOTH,
        **dict.fromkeys(("--resolution", "--device"), NAME),
    },
    "evaluate": {
        **SHARED,
        **JUDGES,
        **GUARD,
        **dict.fromkeys(("--base", "--expert", "--out", "--clip-score", "--inception"), PLACE),
        "--prompts": BOTH,
        "--blocked-words": PLACE,  # compared with prompts, and never drawn or shown
    },
    "stress curve": CONCEPT,
    "stress tokens": {**CONCEPT, **GUARD, "--pictures": NAME, "--steps": NAME},
    "stress words": {
        **STRESS,
        **GUARD,
        "--table": BOTH,
        **dict.fromkeys(("--rewordings", "--seeds", "--steps"), NAME),
    },
    "guard train": {
        **dict.fromkeys(("--base", "--out", "--cache"), PLACE),
        **dict.fromkeys(("--pairs", "--harmless", "--captions"), BOTH),
        **dict.fromkeys(("--part", "--device"), NAME),
    },
    "guard test": {
        **dict.fromkeys(("guard", "--base", "--words"), PLACE),
        **dict.fromkeys(("--pairs", "--harmless"), BOTH),
        **dict.fromkeys(("--part", "--device"), NAME),
    },
    "judge train": {
        **dict.fromkeys(("--base", "--clip-vision", "--out"), PLACE),
        "--pairs": BOTH,
        "--device": NAME,
    },
    "judge test": {
        **dict.fromkeys(("judge", "--base", "--clip-vision"), PLACE),
        "--pairs": BOTH,
        "--device": NAME,
    },
    "extract": {**dict.fromkeys(("--base", "--tuned", "--out"), PLACE), "--category": NAME},
    "info": {"file": PLACE},
}


def text_options(parser):
    """Return the options that take a text: not a flag, a number or one of fixed choices."""
    return {
        action.option_strings[0] if action.option_strings else action.dest
        for action in parser._actions
        if action.nargs != 0 and not action.choices and action.type not in (int, float)
    }


def commands():
    """Return name -> options of every command, from the registry."""
    return {name: text_options(parser) for name, parser in parsers().items()}


def doors(table, kind):
    """Return (node or command, input) for the inputs of a kind."""
    return [(name, at) for name, inputs in table.items() for at, what in inputs.items() if kind in what]


def test_every_option_of_every_command_has_an_entry():
    found = commands()
    assert {name: set(entry) for name, entry in COMMAND_OPTIONS.items()} == {
        name: options - {"--help"} for name, options in found.items()
    }


# minors


def pairs_folder(root, prompt, **changes):
    """Write a folder whose only pair and only neutral row are forbidden."""
    root.mkdir(parents=True)
    for tone, name in enumerate(("u.png", "s.png", "n.png")):
        write_picture(root / name, (tone, 0, 9))
    prompts = {"unsafe_prompt": prompt, "safe_prompt": "a tree"}
    files = {"unsafe_image": "u.png", "safe_image": "s.png"}
    write_rows(root / "pairs.jsonl", [pair_row("1", **{**prompts, **files, **changes})])
    write_rows(root / "neutral.jsonl", [{"id": "n", "prompt": prompt, "image": "n.png"}])
    return root


def coprov2(root, prompt):
    """Write a CSV in CoProV2's layout whose only pair is forbidden."""
    root.mkdir()
    names = coprov2_names(0)
    for tone, name in enumerate(names):
        write_picture(root / name, (tone, 0, 9))
    rows = zip((prompt, "a tree"), names, ("Hate",) * 2, strict=True)
    return write_csv(root / "train.csv", [("prompt", "image", "category"), *rows])


def text(root, *lines):
    (root / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
    return root / "lines.txt"


SAMPLES = [f"{noun} | a {noun} on red | a spoon on red" for noun in ("sword", "axe")]
TINY_GUARD = ("--steps", 2, "--heads", 2, "--head-width", 8, "--out-width", 8)


@pytest.fixture(scope="module")
def guard(base, small_vocabulary, tmp_path_factory):
    """A guard for the tiny checkpoint."""
    root = tmp_path_factory.mktemp("guard")
    words = ("--base", base, "--pairs", text(root, *SAMPLES), *TINY_GUARD)
    assert run("guard", "train", *words, "--out", root / "guard.safetensors").code == 0
    return root / "guard.safetensors"


def samples(root, prompt):
    """Write samples for a guard that are forbidden as the unsafe prompt, the concept or the safe prompt."""
    lines = (f"kid | {prompt} | a ball", f"{prompt} | a skull | a ball", f"ball | a skull | {prompt}")
    return text(root, *lines)


def attack(name, at, root, prompt, base, experts, guard):
    """Return the words of a command whose only prompts, at one option, are forbidden."""
    concept, table = text(root, "a skull|a star"), root / "table.csv"
    table.write_text("sword,blade\n", encoding="utf-8")
    safe = write_csv(root / "safe.csv", [("prompt", "category"), ("a sword", "hate")])
    bad = write_csv(root / "bad.csv", [("prompt", "category"), (prompt, "hate")])
    out = root / "out"
    stress = ["--base", base, "--judge", "mini", *FAST, "--steps", 1]
    curve = [*stress, "--eta", 1]
    search = [*stress, "--population", 4, "--generations", 1, "--free-tokens", 2]
    words = [*stress, "--rounds", 1, "--validations", 1, "--samples", 1, "--directions", 1, "--rewordings", 3]
    return {
        ("pairs check", "source"): lambda: [pairs_folder(root / "p", prompt)],
        ("pairs make", "--prompts"): lambda: [
            *("--base", base, "--prompts", text(root, f"{prompt} => a tree"), "--out", out, *FAST),
            *("--category", "hate"),
        ],
        ("pairs weigh", "folder"): lambda: [pairs_folder(root / "p", prompt), "--judge", "mini"],
        ("pairs label", "source"): lambda: [pairs_folder(root / "p", prompt), "--out", out, *ASKED],
        ("pairs label", "--mis"): lambda: ["--mis", mis_folder(root / "m", prompt), *ASKED],
        ("pairs import-coprov2", "source"): lambda: [coprov2(root / "c", prompt), "--out", out],
        ("pairs rewrite", "prompts"): lambda: [
            text(root, prompt), "--table", table, "--out", root / "made.jsonl"
        ],
        ("pairs rewrite", "--table"): lambda: [
            text(root, "a nude skull"), "--table", text_table(root, "skull,kid"), "--out", root / "made.jsonl"
        ],
        ("pairs rewrite", "--paired-file"): lambda: [
            *(text(root, prompt), "--method", "paired_file", "--out", root / "made.jsonl"),
            *("--paired-file", pairs_folder(root / "p", prompt)),
        ],
        ("train", "--pairs"): lambda: [
            *("--base", base, "--pairs", pairs_folder(root / "p", prompt), "--category", "hate"),
            *("--out", root / "e.safetensors", "--steps", 1, *FAST),
        ],
        ("merge", "--calibration"): lambda: [
            *(*experts, "--method", "co_merge", "--base", base, "--calibration", text(root, prompt)),
            *("--out", root / "e.safetensors", *FAST),
        ],
        ("evaluate", "--prompts"): lambda: [
            *("--base", base, "--judge", "mini", "--prompts", bad, "--out", out, *FAST)
        ],
        ("guard train", "--pairs"): lambda: [
            *("--base", base, "--pairs", samples(root, prompt), "--out", root / "g.safetensors")
        ],
        ("guard train", "--harmless"): lambda: [
            *("--base", base, "--pairs", text(root, *SAMPLES), "--harmless", bad),
            *("--out", root / "g.safetensors"),
        ],
        ("guard train", "--captions"): lambda: [
            *("--kind", "interpreter", "--base", base, "--captions", bad, "--out", root / "g.safetensors")
        ],
        ("guard test", "--pairs"): lambda: [guard, "--base", base, "--pairs", samples(root, prompt)],
        ("guard test", "--harmless"): lambda: [
            guard, "--base", base, "--pairs", text(root, *SAMPLES), "--harmless", bad
        ],
        ("judge train", "--pairs"): lambda: [
            *("--base", base, "--pairs", pairs_folder(root / "p", prompt)),
            *("--out", root / "j.safetensors"),
        ],
        ("judge test", "--pairs"): lambda: [
            tiny_cost().write(root / "j.safetensors"),
            *("--base", base, "--pairs", pairs_folder(root / "p", prompt)),
        ],
        ("stress curve", "--prompts"): lambda: [*curve, "--concept", concept, "--prompts", bad],
        ("stress curve", "--concept"): lambda: [
            *curve, "--concept", text(root, f"{prompt}|a tree"), "--prompts", safe
        ],
        ("stress tokens", "--prompts"): lambda: [*search, "--concept", concept, "--prompts", bad],
        ("stress tokens", "--concept"): lambda: [
            *search, "--concept", text(root, f"{prompt}|a tree"), "--prompts", safe
        ],
        ("stress words", "--prompts"): lambda: [*words, "--table", table, "--prompts", bad],
        ("stress words", "--table"): lambda: [
            *words, "--table", text_table(root, "sword,kid"), "--prompts",
            write_csv(root / "nude.csv", [("prompt", "category"), ("a nude sword", "hate")]),
        ],
    }[name, at]()  # fmt: skip


ASKED = ("--endpoint", "http://127.0.0.1:1/v1", "--endpoint-model", "m")  # nobody answers there


def mis_folder(root, prompt):
    """Write a folder of MIS's test whose only question is forbidden."""
    root.mkdir()
    write_picture(root / "a.png")
    row = {"question": prompt, "category": "hate", "image_path1": "a.png", "image_path2": "a.png"}
    (root / "mis_easy.json").write_text(json.dumps([row]), encoding="utf-8")
    return root


def text_table(root, line):
    (root / "table.csv").write_text(f"{line}\n", encoding="utf-8")
    return root / "table.csv"


HARMLESS_WITHOUT = {  # doors where other prompts remain, so the command runs and leaves these out
    ("pairs weigh", "folder"): "1 that cannot be read or used",
    ("stress words", "--table"): "1 prompts",
}


BEHIND_A_GUARD = [
    (*door, True) for door in doors(COMMAND_OPTIONS, PROMPTS) if "--guard" in COMMAND_OPTIONS[door[0]]
]


@pytest.mark.parametrize(
    ("name", "at", "is_guarded"),
    [*((*door, False) for door in doors(COMMAND_OPTIONS, PROMPTS)), *BEHIND_A_GUARD],
)
@pytest.mark.parametrize("prompt", FORBIDDEN)
def test_no_option_lets_a_forbidden_prompt_in(
    base, experts, guard, tmp_path, monkeypatch, name, at, is_guarded, prompt
):
    encoded = []
    monkeypatch.setattr(
        "training.models.text_encoder.load_tokenizer",
        lambda: lambda texts, *rest, **options: encoded.append(texts) or tokens(texts, *rest, **options),
    )
    words = attack(name, at, tmp_path, prompt, base, experts, guard)
    if is_guarded:  # a guard that blocks nothing
        words += ["--guard", guard, "--guard-threshold", 1.0]
    outcome = run(*name.split(), *words)
    shown = outcome.out + outcome.err
    assert outcome.code == (0 if (name, at) in HARMLESS_WITHOUT else 2), shown
    assert prompt not in shown
    drawn = [one for texts in encoded for one in ([texts] if isinstance(texts, str) else texts)]
    assert not any(joins_minor_and_sexual((), one) for one in drawn)
    reason = HARMLESS_WITHOUT.get((name, at), "word for a minor")
    assert reason in shown or "rule on minors" in shown, shown
    written = tmp_path / "made.jsonl"
    assert not written.exists() or prompt not in json.dumps(written.read_text(encoding="utf-8"))


# containment: the operator may name any path on the command line, but a file that came from elsewhere may not


MANIFESTS = {
    "pairs check": lambda root, base, experts: [root],
    "judge train": lambda root, base, experts: [
        *("--base", base, "--pairs", root, "--out", root / "j.safetensors")
    ],
    "judge test": lambda root, base, experts: [
        *(tiny_cost().write(root / "j.safetensors"), "--base", base, "--pairs", root)
    ],
    "pairs weigh": lambda root, base, experts: [root, "--judge", "mini"],
    "pairs label": lambda root, base, experts: [root, "--out", root.parent / "new", *ASKED],
    "train": lambda root, base, experts: [
        *("--base", base, "--pairs", root, "--category", "hate", "--steps", 1, *FAST),
        *("--out", root / "e.safetensors"),
    ],
    "merge": lambda root, base, experts: [
        *(*experts, "--method", "co_merge", "--base", base, "--calibration", root, *FAST),
        *("--out", root / "e.safetensors"),
    ],
}
NO_PICTURES = (  # doors whose files name no picture, or whose pictures are found by their numbers
    "pairs make", "pairs rewrite", "evaluate", "stress curve", "stress tokens", "stress words",
    "pairs import-coprov2", "guard train", "guard test",
)  # fmt: skip


def test_every_command_that_reads_prompts_says_whether_its_files_name_pictures():
    assert {name for name, _ in doors(COMMAND_OPTIONS, PROMPTS)} == {*MANIFESTS, *NO_PICTURES}


@pytest.mark.usefixtures("small_vocabulary")
@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("path", ["../outside.png", "/etc/hostname", "C:\\x.png", "link.png"])
def test_no_manifest_reads_a_picture_outside_its_folder(base, experts, tmp_path, name, path):
    write_picture(tmp_path / "outside.png")
    root = pairs_folder(tmp_path / "p", "a road", safe_image=path)
    (root / "neutral.jsonl").unlink()
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    outcome = run(*name.split(), *MANIFESTS[name](root, base, experts))
    shown = outcome.out + outcome.err
    if name == "pairs weigh":
        assert "0 pairs scored" in shown
        assert "scores" not in (root / "pairs.jsonl").read_text()
    else:
        assert outcome.code == 2
        assert "leads out of the folder" in shown


# blur: what a command writes for people to look at

WRITES_PICTURES = {
    "mini": "drawings of its own icons",
    "pairs make": "unsafe pictures, only in the folder of pairs",
    "pairs import-coprov2": "copies of the user's pictures, only in the folder of pairs",
    "pairs label": "copies of the user's pictures, only in the folder of pairs",
    "pairs move": "moves the user's files",
    "evaluate": "thumbnails, which `test_thumbnails.py` proves blurred where unsafe",
    "stress curve": "nothing: counts",
    "stress tokens": "nothing: counts",
    "stress words": "nothing: counts",
}


def test_every_command_that_fills_a_folder_says_which_pictures_it_writes():
    folders = {
        name
        for name, options in COMMAND_OPTIONS.items()
        if options.get("--out", options.get("target")) == PLACE
    }
    files = {
        "train",
        "merge",
        "extract",
        "pairs rewrite",
        "guard train",
        "judge train",
    }  # one file each, of weights or of text
    assert folders - files == set(WRITES_PICTURES)
