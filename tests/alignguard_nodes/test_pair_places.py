"""Where the nodes that make and load pairs keep and find them."""

import pytest

from tiny_checkpoint import write_pairs


@pytest.fixture
def load(node_class):
    return node_class("load_safety_pairs")


def test_pairs_are_found_in_the_packs_folder_and_below_input(load, node_class, pack, tmp_path):
    write_pairs(tmp_path / "user" / "pairs" / "own", "hate")
    write_pairs(tmp_path / "input" / "alignguard_pairs" / "old", "hate")
    places = pack("alignguard_nodes.inputs").pair_places()
    is_source = pack("training.pairs").is_pair_source
    assert pack("alignguard_nodes.files").pair_sources(places, is_source) == ["alignguard_pairs/old", "own"]
    for folder in ("own", "alignguard_pairs/old"):
        assert load.validate_inputs(folder, "all") is True


def test_only_pairs_below_input_are_reported_with_a_warning(load, tmp_path, caplog):
    write_pairs(tmp_path / "user" / "pairs" / "own", "hate")
    write_pairs(tmp_path / "input" / "old", "hate")
    pairs, report = load.execute("old", "all", 0).values
    assert len(pairs.pairs) == 3
    assert report.startswith("WARNING: these pairs lie below ComfyUI's input folder")
    assert "pairs move" in caplog.text
    caplog.clear()
    pairs, own_report = load.execute("own", "all", 0).values
    assert own_report == report.split("\n", 1)[1]
    assert caplog.text == ""


def test_the_packs_folder_may_itself_be_a_link_to_another_disk(load, node_class, tmp_path):
    write_pairs(tmp_path / "other disk-1" / "own", "hate")
    (tmp_path / "user").mkdir(exist_ok=True)
    try:
        (tmp_path / "user" / "pairs").symlink_to(tmp_path / "other disk-1", target_is_directory=True)
    except OSError:  # Windows without developer mode
        pytest.skip("no right to make links here")
    assert load.validate_inputs("own", "all") is True
    pairs, report = load.execute("own", "all", 0).values
    assert len(pairs.pairs) == 3
    assert "WARNING" not in report
    assert node_class("make_safety_pairs").validate_inputs("a skull => a ball", "hate", "new") is True


def test_pairs_that_were_moved_are_read_again_from_their_new_place(load, tmp_path):
    old = write_pairs(tmp_path / "input" / "a", "hate")
    before = load.fingerprint_inputs("a")
    (tmp_path / "user" / "pairs").mkdir(parents=True)
    old.rename(tmp_path / "user" / "pairs" / "a")
    assert load.fingerprint_inputs("a") != before
    assert load.fingerprint_inputs("a") == load.fingerprint_inputs("a")


def test_a_prompt_file_of_moved_pairs_keeps_its_name(node_class, tmp_path):
    prompts = node_class("load_prompt_set")
    write_pairs(tmp_path / "user" / "pairs" / "b" / "hate", "hate")
    assert prompts.validate_inputs("b/hate/pairs.jsonl", "all") is True
    assert node_class("concept_vector").validate_inputs("", "b/hate") is True
    assert "must be inside" in prompts.validate_inputs("../x.csv", "all")


def test_a_run_that_began_below_input_is_refused_before_anything_is_drawn(node_class, tmp_path):
    write_pairs(tmp_path / "input" / "made" / "old", "hate")
    make = node_class("make_safety_pairs")
    answer = make.validate_inputs("a skull => a ball", "hate", "made/old")
    assert "pairs are no longer made there" in answer
    assert make.validate_inputs("a skull => a ball", "hate", "made/new") is True
