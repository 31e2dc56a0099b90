"""Names from widgets and API prompts, resolved inside one folder, and fingerprints of files."""

import pytest


@pytest.fixture
def files(pack):
    return pack("alignguard_nodes.files")


def test_folders_and_files_with_pairs_are_found_up_to_two_deep(files, tmp_path):
    for name in ("a", "b/c", "b/c/d", "e"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    for name in ("a", "b/c", "b/c/d"):
        (tmp_path / name / "pairs.jsonl").touch()
    for name in ("top.csv", "a/in.csv", "b/c/deep.csv", "a/other.txt"):
        (tmp_path / name).touch()

    def is_source(path):
        return (path / "pairs.jsonl").is_file() or path.suffix == ".csv"

    nowhere = tmp_path / "nowhere"
    for places in (files.Places(nowhere, tmp_path), files.Places(tmp_path, nowhere)):
        assert files.pair_sources(places, is_source) == ["a", "a/in.csv", "b/c", "top.csv"]
    (tmp_path / "e" / "a").mkdir()
    (tmp_path / "e" / "a" / "pairs.jsonl").touch()
    both = files.pair_sources(files.Places(tmp_path / "e", tmp_path), is_source)
    assert both == ["a", "a/in.csv", "b/c", "e/a", "top.csv"]  # a name in both is listed once
    assert files.pair_sources(files.Places(nowhere, nowhere), is_source) == []


def test_files_are_found_up_to_two_folders_deep(files, tmp_path):
    for name in ("top.csv", "a/in.csv", "a/b/deep.csv", "a/b/c/deeper.csv", "a/other.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = files.input_files([tmp_path, tmp_path / "nowhere"], lambda path: path.suffix == ".csv")
    assert found == ["a/b/deep.csv", "a/in.csv", "top.csv"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/../..", "/etc", "\\\\server\\x", "..\\x", "C:\\x", "C:x", "a\0b"]
)
def test_a_name_that_leads_out_of_its_folder_is_refused(files, tmp_path, name):
    (tmp_path / "a").mkdir()
    places = files.Places(tmp_path / "pairs", tmp_path)
    for resolve in (files.pairs_path, files.prompt_set_path):
        with pytest.raises(ValueError, match="must be inside ComfyUI's input folder or user/__alignguard"):
            resolve(places, name)
    with pytest.raises(ValueError, match="must be inside user/__alignguard/pairs"):
        files.new_pairs_path(places, name)
    with pytest.raises(ValueError, match=f"must be inside output/{files.BENCHMARKS}"):
        files.benchmark_path(tmp_path, name)
    with pytest.raises(ValueError, match="must name a file inside output/loras/alignguard"):
        files.new_expert_path(tmp_path, name)


def test_a_link_out_of_the_input_folder_is_refused(files, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "input").mkdir()
    try:
        (tmp_path / "input" / "link").symlink_to(tmp_path / "outside", target_is_directory=True)
    except OSError:
        pytest.skip("no right to make links here")
    places = files.Places(tmp_path / "input", tmp_path / "input")
    with pytest.raises(ValueError, match="inside ComfyUI's input folder"):
        files.pairs_path(places, "link")
    with pytest.raises(ValueError, match="inside user/__alignguard/pairs"):
        files.new_pairs_path(places, "link/new")


def test_a_list_offers_exactly_what_the_check_accepts(files, tmp_path):
    root, outside = tmp_path / "input", tmp_path / "outside"
    for folder in (root / "hub" / "blobs", root / "hub" / "snapshots", outside):
        folder.mkdir(parents=True)
    for name in ("hub/blobs/1", "top.CSV", "aux.csv", "a:b.csv"):
        (root / name).touch()
    (outside / "x.csv").touch()
    try:
        (root / "hub" / "snapshots" / "in.csv").symlink_to(root / "hub" / "blobs" / "1")
        (root / "hub" / "out.csv").symlink_to(outside / "x.csv")
        (root / "linked").symlink_to(outside, target_is_directory=True)
    except OSError:
        pytest.skip("no right to make links here")
    (root / "hub" / "in.csv").symlink_to(root / "hub" / "blobs" / "1")
    places = files.Places(tmp_path / "pairs", root)
    sources = files.pair_sources(places, lambda path: path.suffix.lower() == ".csv")
    assert sources == ["hub/in.csv", "top.CSV"]
    listed = files.input_files(places, lambda path: path.suffix.lower() == ".csv")
    assert listed == ["hub/in.csv", "hub/snapshots/in.csv", "top.CSV"]
    for name in listed:
        assert files.pairs_path(places, name).is_file()
    for name in ("aux.csv", "a:b.csv", "hub/out.csv", "linked/x.csv", "linked"):
        with pytest.raises((ValueError, FileNotFoundError), match="in(side)? ComfyUI's input folder"):
            files.pairs_path(places, name)


CJK = "\u65e5" * 60  # 180 bytes; quoted for a run folder, three times as many


@pytest.mark.parametrize("name", ["a" * 256, "\u65e5" * 86, "a?", "./a./b", "b /c", "a|b", "a\nb"])
def test_a_new_name_that_some_system_cannot_write_is_refused_before_the_work(files, tmp_path, name):
    places = files.Places(tmp_path / "pairs", tmp_path / "input")
    for resolve, root in (
        (files.new_pairs_path, places),
        (files.benchmark_path, tmp_path),
        (files.new_expert_path, tmp_path),
    ):
        with pytest.raises(ValueError, match="cannot name a file .* Choose another name"):
            resolve(root, name)


@pytest.mark.parametrize("name", ["con", "aux.v2", "a/NUL"])
def test_a_device_of_windows_is_refused_as_a_new_name(files, tmp_path, name):
    places = files.Places(tmp_path / "pairs", tmp_path / "input")
    for resolve, root in (
        (files.new_pairs_path, places),
        (files.benchmark_path, tmp_path),
        (files.new_expert_path, tmp_path),
    ):
        with pytest.raises(ValueError, match="inside"):
            resolve(root, name)


def test_a_long_name_in_another_script_has_room_for_its_number_its_partial_file_and_its_run(files, tmp_path):
    path = files.new_expert_path(tmp_path, CJK)
    path.parent.mkdir(parents=True)
    path.with_stem(f"{path.stem}_partial").touch()
    for prefix in (CJK, f"{CJK}/{CJK}"):
        (tmp_path / files.run_name(tmp_path, prefix)).mkdir()
    assert files.run_name(tmp_path, CJK) != files.run_name(tmp_path, CJK + "2")
    with pytest.raises(ValueError, match="more than 255 bytes"):
        files.new_expert_path(tmp_path, "a" * 240)


def test_new_pairs_go_where_they_will_be_listed(files, tmp_path):
    places = files.Places(tmp_path / "pairs", tmp_path / "input")
    assert files.new_pairs_path(places, "a\\b") == places.pairs / "a" / "b"
    with pytest.raises(ValueError, match="at most two deep"):
        files.new_pairs_path(places, "a/b/c")


def test_pairs_that_are_not_listed_win_over_a_listed_folder_of_the_same_name(files, tmp_path):
    places = files.Places(tmp_path / "pairs", tmp_path / "input")
    (places.listed / "a").mkdir(parents=True)
    assert files.pairs_path(places, "a") == places.listed / "a"
    (places.pairs / "a").mkdir(parents=True)
    assert files.pairs_path(places, "a") == places.pairs / "a"


def test_pairs_that_the_host_lists_come_with_a_warning_and_the_command_that_moves_them(files, tmp_path):
    places = files.Places(tmp_path / "user" / "pairs", tmp_path / "my input")
    listed, hidden = places.listed / "a" / "b", places.pairs / "a" / "b"
    warning = files.warning_of_listing(places, listed)
    assert warning.startswith("WARNING: these pairs lie below ComfyUI's input folder")
    assert f'python -m training pairs move "{listed}" "{hidden}"' in warning
    assert files.warning_of_listing(places, hidden) == ""


def test_a_run_that_began_below_input_is_moved_before_it_is_continued(files, tmp_path):
    places = files.Places(tmp_path / "pairs", tmp_path / "input")
    begun = places.listed / "made" / "old"
    begun.mkdir(parents=True)
    assert files.new_pairs_path(places, "made/old") == places.pairs / "made" / "old"  # an empty folder
    (begun / "pairs.jsonl").touch()
    with pytest.raises(ValueError, match="no longer made there.*pairs move.*Or name another folder"):
        files.new_pairs_path(places, "made/old")
    places.pairs.mkdir()
    begun.parent.rename(places.pairs / "made")
    assert files.new_pairs_path(places, "made/old") == places.pairs / "made" / "old"


def test_a_missing_folder_is_named(files, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder or file 'gone'"):
        files.pairs_path(files.Places(tmp_path, tmp_path), "gone")


def test_file_names_count_up_past_partial_ones_and_never_repeat(files, tmp_path):
    first = files.new_expert_path(tmp_path, "mine/hate")
    assert first.relative_to(tmp_path).as_posix() == "loras/alignguard/mine/hate_00001_.safetensors"
    first.parent.mkdir(parents=True)
    (first.parent / "hate_00007__partial.safetensors").touch()
    (first.parent / "hate_speech_00099_.safetensors").touch()
    assert files.new_expert_path(tmp_path, "mine/hate").name == "hate_00008_.safetensors"


def test_each_prefix_has_its_own_run_folder_whatever_number_its_files_have(files, tmp_path):
    prefixes = ["mine/hate", "mine%2Fhate", "mine_hate", "mine"]
    names = [files.run_name(tmp_path, prefix) for prefix in prefixes]
    assert names == ["mine%2Fhate", "mine%252Fhate", "mine_hate", "mine"]
    assert files.run_name(tmp_path, "./mine\\hate ") == "mine%2Fhate"
    with pytest.raises(ValueError, match="must name a file inside"):
        files.run_name(tmp_path, "../mine")


def test_a_fingerprint_changes_with_any_file_and_only_then(files, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_text("one")
    first = files.folder_fingerprint(tmp_path)
    assert files.folder_fingerprint(tmp_path) == first
    (tmp_path / "deep" / "a").write_text("other")
    assert files.folder_fingerprint(tmp_path) != first


def test_the_fingerprint_of_a_csv_changes_with_it_and_with_its_images(files, tmp_path):
    csv, images = tmp_path / "a.csv", tmp_path / "a"
    csv.write_text("one")
    images.mkdir()
    fingerprints = {files.source_fingerprint(csv, images)}
    csv.write_text("another")
    fingerprints.add(files.source_fingerprint(csv, images))
    (images / "u.jpg").touch()
    fingerprints.add(files.source_fingerprint(csv, images))
    assert len(fingerprints) == 3
    assert files.source_fingerprint(images, None) == files.folder_fingerprint(images)


def test_a_watch_counts_only_changes_made_by_others(files, tmp_path):
    watch, folder = files.FolderWatch(), tmp_path / "pairs"
    assert watch.changes(folder) == 0  # there is no folder before the first run
    folder.mkdir()
    (folder / "pairs.jsonl").write_text("one")
    watch.leave(folder)
    assert watch.changes(folder) == watch.changes(folder) == 0  # the node's own work
    (folder / "pairs.jsonl").write_text("edited")
    assert watch.changes(folder) == 1
    watch.leave(folder)  # the run that followed
    assert watch.changes(folder) == 1
    (folder / "pairs.jsonl").unlink()
    folder.rmdir()
    assert watch.changes(folder) == 2
    watch.leave(folder)
    assert watch.changes(tmp_path / "another") == 0


def test_files_that_were_there_at_first_sight_are_no_change(files, tmp_path):
    (tmp_path / "pairs.jsonl").write_text("of an earlier session")
    assert files.FolderWatch().changes(tmp_path) == 0
