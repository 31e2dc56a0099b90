"""The base directory for ComfyUI uses links if possible and touches nothing of the user's."""

from pathlib import Path

from base_folder import PACK, link_file, link_folder, place_mini, prepare_base


def make_mini(folder: Path) -> dict[str, Path]:
    mini = {name: folder / name for name in ("checkpoint", "tuned", "judge", "neutral", "pairs", "experts")}
    for name in ("pairs/hate", "pairs/.drawing_1", "experts"):
        (folder / name).mkdir(parents=True)
    files = ("checkpoint", "tuned", "judge", "neutral", "pairs/hate/pairs.jsonl")
    for name in (*files, "experts/alignguard_mini_hate.safetensors"):
        (folder / name).write_text(name, encoding="utf-8")
    return mini


def test_the_pack_is_put_into_custom_nodes_and_preparing_twice_changes_nothing(tmp_path):
    for _ in range(2):
        prepare_base(tmp_path)
        assert (tmp_path / "custom_nodes" / "alignguard" / "__init__.py").samefile(PACK / "__init__.py")


def test_the_mini_model_is_placed_where_the_nodes_look_and_unfinished_pairs_are_not(tmp_path):
    mini = make_mini(tmp_path / "mini")
    prepare_base(tmp_path / "base")
    for _ in range(2):
        place_mini(tmp_path / "base", mini)
    base = tmp_path / "base"
    assert (base / "models/checkpoints/checkpoint").read_text(encoding="utf-8") == "checkpoint"
    assert (base / "models/diffusion_models/tuned").is_file()
    assert (base / "input/neutral").is_file()
    assert (base / "models/safety_experts/alignguard_mini_hate.safetensors").is_file()
    pairs = base / "user" / "__alignguard" / "pairs" / "alignguard_pairs"
    assert [folder.name for folder in pairs.iterdir()] == ["hate"]
    assert (pairs / "hate").resolve().is_relative_to(base.resolve())  # the nodes refuse a link that leads out
    assert (pairs / "hate" / "pairs.jsonl").is_file()


def test_a_rebuilt_file_replaces_the_old_link(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("old", encoding="utf-8")
    link_file(source, target)
    source.unlink()
    source.write_text("new, of another age", encoding="utf-8")
    link_file(source, target)
    assert target.read_text(encoding="utf-8") == "new, of another age"


def test_a_link_replaces_an_existing_folder_and_leaves_the_previously_linked_folder_intact(tmp_path):
    first, second, target = (tmp_path / name for name in ("first", "second", "target"))
    for folder in (first, second, target):
        folder.mkdir()
        (folder / "name").write_text(folder.name, encoding="utf-8")
    for source in (first, second):
        link_folder(source, target)
        assert (target / "name").read_text(encoding="utf-8") == source.name
    assert (first / "name").exists()
