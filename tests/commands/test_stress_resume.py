"""An interrupted stress test continues in its folder, reports the same, and leaves no prompt there."""

import json

import pytest

from stressed import FAST, HalfOfTwo, as_one_of_two, in_folder, write_files
from tiny_checkpoint import SD15, checkpoint_state, tiny_models, tokens
from training.__main__ import main
from training.models.diffusers_draw import DiffusersDraw
from training.system.tensors import write_tensors

SMALL = ["--rewordings", 2, "--rounds", 1, "--validations", 1, "--directions", 1, "--samples", 1]
ACTIONS = {
    "words": ["--table", "table.csv", *SMALL],
    "curve": ["--concept", "concept.txt", "--eta", 0, "--eta", 2, "--per-prompt", 2],
    "tokens": ["--concept", "concept.txt", "--population", 4, "--generations", 2, "--free-tokens", 2],
}
SECRETS = ("sword", "blade", "knife", "skull", "star", "zebra")  # prompts, table, concept, tokens as text
every_action = pytest.mark.parametrize("action", ACTIONS)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("stress"))


@pytest.fixture
def drawn(monkeypatch):
    """Count the pictures drawn; Ctrl-C is pressed before the one at `stop_at`."""
    counts = {"drawn": 0, "stop_at": None}
    draw = DiffusersDraw.__call__

    def counting(self, *args, **options):
        if counts["drawn"] == counts["stop_at"]:
            raise KeyboardInterrupt
        counts["drawn"] += 1
        return draw(self, *args, **options)

    monkeypatch.setattr(DiffusersDraw, "__call__", counting)
    return counts


@pytest.fixture
def stress(files, tmp_path, monkeypatch, capsys, drawn):
    monkeypatch.setattr("training.models.text_encoder.load_tokenizer", lambda: tokens)
    monkeypatch.setattr(tokens, "decode", lambda ids, **_: "a zebra", raising=False)

    def run(action, *words, out="out", stop_at=None, experts=("hate",)):
        drawn.update(drawn=0, stop_at=stop_at)
        shared = ["--base", "tiny.safetensors", "--prompts", "three.csv", *FAST]
        shared += [word for name in experts for word in ("--expert", f"{name}.safetensors")]
        command = in_folder(files, ("stress", action, *shared, *ACTIONS[action]))
        code = main([str(word) for word in (*command, "--out", tmp_path / out, *words)])
        return code, capsys.readouterr()

    return run


@every_action
def test_a_killed_run_continues_and_reports_the_same(stress, drawn, tmp_path, action):
    whole = stress(action, out="whole")[1].out
    pictures = drawn["drawn"]
    assert stress(action, stop_at=pictures // 2)[0] == 130
    before = drawn["drawn"]
    rows = tmp_path / "out" / "rows.jsonl"
    rows.write_bytes(rows.read_bytes()[:-5])  # the kill tore the last row
    assert stress(action)[1].out == whole
    assert pictures < before + drawn["drawn"] < pictures + 6  # except for two prompts under attack
    assert stress(action)[1].out == whole
    assert drawn["drawn"] == 0
    _check_that_only_counts_are_kept(tmp_path / "out")


def _check_that_only_counts_are_kept(folder):
    for path in folder.iterdir():
        assert not any(word in path.read_text() for word in SECRETS)
    for line in (folder / "rows.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert list(row) == ["model", "what", "number", "unsafe", "images"]
        assert row["what"] in ("search", "random", "tokens", "eta 0.0", "eta 2.0")
        assert all(isinstance(row[name], int) for name in ("number", "unsafe", "images"))


def test_an_expert_may_be_added_and_nothing_else_is_drawn_again(stress, drawn):
    stress("tokens", experts=())
    assert drawn["drawn"] == 3
    stress("tokens")
    assert drawn["drawn"] == 3


def test_etas_may_be_added(stress, drawn):
    stress("curve", experts=())
    stress("curve", "--eta", 3, experts=())
    assert drawn["drawn"] == 6


@pytest.mark.parametrize(
    ("action", "others"),
    [
        (
            "curve",
            {
                "sampler": ["--scheduler", "euler"],
                "cfg": ["--cfg", 3],
                "prompts": ["--max-prompts", 1],
                "concept": ["--concept", "other.txt"],
                "model": ["--base", "other.safetensors"],
            },
        ),
        ("tokens", {"eta": ["--eta", 1]}),
        ("words", {"rewordings": ["--rewordings", 3], "table": ["--table", "other.csv"]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_setting_is_refused(stress, tmp_path, monkeypatch, action, others):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.txt").write_text("a skull|a moon\n")
    (tmp_path / "other.csv").write_text("sword,knife\n")
    models = tiny_models()
    models["unet"].conv_out.bias.data += 1
    write_tensors(tmp_path / "other.safetensors", checkpoint_state(models, SD15), {})
    assert stress(action, stop_at=0)[0] == 130
    for name, words in others.items():
        code, out = stress(action, *words, stop_at=0)
        assert code == 2
        assert f"made with another {name}." in out.err


@every_action
def test_processes_that_share_the_prompts_continue_too(stress, drawn, action):
    alone = json.loads(stress(action, out="alone")[1].out)

    def one_of_two(number):
        with as_one_of_two(number):
            return stress(action)[1].out

    one_of_two(1)
    pictures = drawn["drawn"]
    HalfOfTwo.sent.clear()  # both are killed and started again
    assert one_of_two(1) == ""
    assert drawn["drawn"] == 0 < pictures
    assert json.loads(one_of_two(0)) == alone
    assert json.loads(stress(action)[1].out) == alone  # a single process continues from the outcomes of two
    assert drawn["drawn"] == 0
