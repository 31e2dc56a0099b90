"""The command `mini`."""

from command_line import answer_of, run
from training import mini
from training.mini import build


def test_mini_shows_its_stages_and_answers_with_the_paths(tmp_path, monkeypatch):
    def build_nothing(out, *, world, on_progress):
        assert world == "small"
        for what in ("checkpoint", "pairs"):
            on_progress(what, 0, 2)
            on_progress(what, 2, 2)
        return {"checkpoint": out / "m.safetensors", "pairs": out / "pairs"}

    monkeypatch.setattr(
        "training.mini.build.build_mini", build_nothing
    )  # the real function draws for a minute
    outcome = run("mini", "--out", tmp_path, "--json")
    assert answer_of(outcome) == {
        "checkpoint": str(tmp_path / "m.safetensors"),
        "pairs": str(tmp_path / "pairs"),
    }
    assert "pairs: 100%" in outcome.err


def test_the_large_world_is_built_on_request(tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr(
        "training.mini.build.build_mini", lambda out, *, world, **_: built.append(world) or {}
    )
    run("mini", "--out", tmp_path, "--world", "large", "--json")
    assert built == ["large"]


def test_the_command_offers_every_world_that_can_be_built():
    assert list(mini.WORLDS) == list(build.WORLDS)
