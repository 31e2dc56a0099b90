"""The command `mini`."""

from command_line import answer_of, run


def test_mini_shows_its_stages_and_answers_with_the_paths(tmp_path, monkeypatch):
    def build(out, *, on_progress):
        for what in ("checkpoint", "pairs"):
            on_progress(what, 0, 2)
            on_progress(what, 2, 2)
        return {"checkpoint": out / "m.safetensors", "pairs": out / "pairs"}

    monkeypatch.setattr("training.mini.build.build_mini", build)  # the real function draws for a minute
    outcome = run("mini", "--out", tmp_path, "--json")
    assert answer_of(outcome) == {
        "checkpoint": str(tmp_path / "m.safetensors"),
        "pairs": str(tmp_path / "pairs"),
    }
    assert "pairs: 100%" in outcome.err
