"""The pack as files, without a host: what is recorded of the nodes, their help, and untrusted names."""

import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from PIL import ImageColor

from training.config import (
    DepthConfig,
    EvaluateConfig,
    ExtractConfig,
    MakeConfig,
    MergeConfig,
    RewriteConfig,
    StressConfig,
    TrainConfig,
    options,
)
from training.experts.low_rank import LowRank
from training.experts.merge_facts import merge_facts
from training.trainer.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
NODES = ROOT / "alignguard_nodes"
SCHEMAS = json.loads((ROOT / "tests" / "alignguard_nodes" / "node_schemas.json").read_text(encoding="utf-8"))
OURS = {name: schema for name, schema in SCHEMAS.items() if name.startswith("AlignGuard")}


def load(name: str):
    """Import one module of the nodes that needs neither the host nor the rest of the pack."""
    spec = importlib.util.spec_from_file_location(f"nodes_{name}", NODES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


files = load("files")


def test_the_nodes_of_the_design_are_recorded():
    assert {schema["display_name"] for schema in OURS.values()} == {
        "Load Safety Expert",
        "Apply Safety Expert",
        "Merge Safety Experts",
        "Train Safety DPO",
        "Load Safety Pairs",
        "Save Safety Expert",
        "Safety Expert Info",
        "Extract Safety Expert",
        "Safety Judge",
        "Make Safety Pairs",
        "Rewrite Prompts",
        "Load Prompt Set",
        "Safety Benchmark",
        "Concept Vector",
        "Concept Stress",
        "Erasure Depth",
        "Check Safety Stack",
    }


WIDGETS = {"INT", "FLOAT", "BOOLEAN", "COMBO", "STRING"}  # sockets may stand behind them
OLDER_THAN = {"lr_schedule": ["resume"], "flip": ["preset", "bake_patches"]}  # option -> inputs before it
YOUNGER = {None: ["blocked_words"]}  # behind all options


@pytest.mark.parametrize(
    ("node", "config", "elsewhere", "between"),
    [
        ("AlignGuardTrainSafetyDPO", TrainConfig, set(), OLDER_THAN),
        ("AlignGuardMergeSafetyExperts", MergeConfig, {"method"}, {}),
        ("AlignGuardExtractSafetyExpert", ExtractConfig, set(), {}),
        ("AlignGuardMakeSafetyPairs", MakeConfig, set(), {}),
        ("AlignGuardRewritePrompts", RewriteConfig, set(), {}),
        ("AlignGuardSafetyBenchmark", EvaluateConfig, set(), YOUNGER),
        ("AlignGuardCheckSafetyStack", EvaluateConfig, set(), {}),
        ("AlignGuardConceptStress", StressConfig, set(), {}),
        ("AlignGuardErasureDepth", DepthConfig, set(), {}),
    ],
)
def test_a_node_offers_every_option_in_order_behind_its_own_inputs(node, config, elsewhere, between):
    names = [option.name for option in options(config) if option.name not in elsewhere]
    for younger, inputs_before in between.items():  # inputs are only appended, so options stand behind them
        at = names.index(younger) if younger else len(names)
        names[at:at] = inputs_before
    widgets = [name for name, kind in OURS[node]["optional"].items() if kind in WIDGETS]
    assert widgets[-len(names) :] == names


def test_every_node_has_a_help_page_that_names_every_input_but_like_and_advanced_ones():
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (NODES / "web" / "docs").glob("*.md")}
    assert pages.keys() == OURS.keys()
    explained = {"objective", "steps", "beta", "save_every", "row_dropout", "lr_schedule", "pair_weighting"}
    advanced = {option.name for option in options(TrainConfig)} - explained
    for name, schema in OURS.items():
        left_out = advanced - {"seed"} if name == "AlignGuardTrainSafetyDPO" else set()
        inputs = [key for key in schema["required"] | schema["optional"] if key[-1] not in "2345678"]
        assert pages[name].startswith(f"# {schema['display_name']}\n")
        assert [key for key in inputs if key not in left_out and f"`{key}`" not in pages[name]] == []


def test_importing_the_pack_imports_nothing_heavy():
    code = (
        "import importlib.util, sys;"
        f"spec = importlib.util.spec_from_file_location('a-pack', {str(ROOT / '__init__.py')!r});"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module);"
        "print(module.WEB_DIRECTORY, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["./alignguard_nodes/web", "False"]


def test_only_host_touches_comfy_and_nodes_do_no_arithmetic():
    for path in NODES.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import comfy." not in text, path.name
        assert "folder_paths" not in text, path.name
        assert "torch." not in text, path.name


def test_folders_and_files_with_pairs_are_found_up_to_two_deep(tmp_path):
    for name in ("a", "b/c", "b/c/d", "e"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    for name in ("a", "b/c", "b/c/d"):
        (tmp_path / name / "pairs.jsonl").touch()
    for name in ("top.csv", "a/in.csv", "b/c/deep.csv", "a/other.txt"):
        (tmp_path / name).touch()

    def is_source(path):
        return (path / "pairs.jsonl").is_file() or path.suffix == ".csv"

    assert files.pair_sources(tmp_path, is_source) == ["a", "a/in.csv", "b/c", "top.csv"]
    assert files.pair_sources(tmp_path / "nowhere", is_source) == []


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/../..", "/etc", "\\\\server\\x", "..\\x", "C:\\x", "C:x", "a\0b"]
)
def test_a_name_that_leads_out_of_its_folder_is_refused(tmp_path, name):
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="must be inside ComfyUI's input folder"):
        files.pairs_path(tmp_path, name)
    with pytest.raises(ValueError, match="must be inside ComfyUI's input folder"):
        files.new_pairs_path(tmp_path, name)
    with pytest.raises(ValueError, match="must name a file inside output/loras/alignguard"):
        files.new_expert_path(tmp_path, name)


def test_a_link_out_of_the_input_folder_is_refused(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "input").mkdir()
    try:
        (tmp_path / "input" / "link").symlink_to(tmp_path / "outside", target_is_directory=True)
    except OSError:
        pytest.skip("no right to make links here")
    with pytest.raises(ValueError, match="inside ComfyUI's input folder"):
        files.pairs_path(tmp_path / "input", "link")
    with pytest.raises(ValueError, match="inside ComfyUI's input folder"):
        files.new_pairs_path(tmp_path / "input", "link/new")


def test_new_pairs_go_where_they_will_be_listed(tmp_path):
    assert files.new_pairs_path(tmp_path, "a\\b") == tmp_path / "a" / "b"
    with pytest.raises(ValueError, match="at most two deep"):
        files.new_pairs_path(tmp_path, "a/b/c")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder or file 'gone'"):
        files.pairs_path(tmp_path, "gone")


def test_file_names_count_up_past_partial_ones_and_never_repeat(tmp_path):
    first = files.new_expert_path(tmp_path, "mine/hate")
    assert first.relative_to(tmp_path).as_posix() == "loras/alignguard/mine/hate_00001_.safetensors"
    first.parent.mkdir(parents=True)
    (first.parent / "hate_00007__partial.safetensors").touch()
    (first.parent / "hate_speech_00099_.safetensors").touch()
    assert files.new_expert_path(tmp_path, "mine/hate").name == "hate_00008_.safetensors"


def test_every_prefix_has_a_run_folder_of_its_own_whatever_its_files_count(tmp_path):
    names = ["mine/hate", "mine%2Fhate", "mine_hate", "mine"]
    found = [files.run_name(tmp_path, name) for name in names]
    assert found == ["mine%2Fhate", "mine%252Fhate", "mine_hate", "mine"]
    assert files.run_name(tmp_path, "./mine\\hate ") == "mine%2Fhate"
    with pytest.raises(ValueError, match="must name a file inside"):
        files.run_name(tmp_path, "../mine")


def test_a_fingerprint_changes_with_any_file_and_only_then(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_text("one")
    first = files.folder_fingerprint(tmp_path)
    assert files.folder_fingerprint(tmp_path) == first
    (tmp_path / "deep" / "a").write_text("other")
    assert files.folder_fingerprint(tmp_path) != first


def test_only_what_others_do_to_a_folder_counts(tmp_path):
    watch, folder = files.FolderWatch(), tmp_path / "pairs"
    assert watch.changes(folder) == 0  # before the first run there is none
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


def test_what_lies_in_a_folder_at_first_sight_is_no_change(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("of an earlier session")
    assert files.FolderWatch().changes(tmp_path) == 0


def test_the_fingerprint_of_a_csv_changes_with_it_and_with_its_images(tmp_path):
    csv, images = tmp_path / "a.csv", tmp_path / "a"
    csv.write_text("one")
    images.mkdir()
    seen = {files.source_fingerprint(csv, images)}
    csv.write_text("another")
    seen.add(files.source_fingerprint(csv, images))
    (images / "u.jpg").touch()
    seen.add(files.source_fingerprint(csv, images))
    assert len(seen) == 3
    assert files.source_fingerprint(images, None) == files.folder_fingerprint(images)


@pytest.mark.parametrize("losses", [[0.7], [0.7, 0.7], [3.0, 1.0, 0.5, 0.2], [0.0, 0.0], [-1.0, 2.0]])
def test_a_loss_curve_is_a_picture_for_any_run(losses):
    picture = load("shown/loss_curve").draw_loss_curve(losses)
    assert picture.size == (512, 256)
    assert len(picture.getcolors(maxcolors=100_000)) > 2


def test_an_accuracy_is_drawn_beside_the_loss():
    draw = load("shown/loss_curve").draw_loss_curve
    plain = draw([0.7, 0.5], [0.5, 1.0])
    assert plain.tobytes() != draw([0.7, 0.5]).tobytes()
    held = ImageColor.getrgb(load("shown/loss_curve").HELD)
    assert held not in {colour for _, colour in plain.getcolors(maxcolors=100_000)}
    with_held_out = draw([0.7] * 5, [0.5] * 5, {2: 0.0, 4: 1.0}).crop((32, 12, 395, 224))  # without its words
    places = [(x, y) for x in range(363) for y in range(212) if with_held_out.getpixel((x, y)) == held]
    # from the second step, at nothing, to the fourth, at all of them
    assert min(places)[0] == pytest.approx(464 / 4, abs=2)
    assert max(places)[0] == pytest.approx(3 * 464 / 4, abs=2)
    assert min(places)[1] > 200


def watched(monkeypatch, seconds, held_out=types.MappingProxyType({})):
    """Return what a watch shows of 4 steps; `seconds` is what its clock says when made and after each."""
    for name, path in (("pack", ROOT), ("pack.alignguard_nodes", NODES)):
        package = types.ModuleType(name)
        package.__path__ = [str(path)]  # without running __init__.py, which needs the host
        monkeypatch.setitem(sys.modules, name, package)
    module = importlib.import_module("pack.alignguard_nodes.shown.training_watch")
    shown, times = [], iter(seconds)
    watch = module.TrainingWatch(lambda *what: shown.append(what), clock=lambda: next(times))
    for step in range(1, 5):
        watch(step, 4, {"loss": 1 / step, "implicit_accuracy": 0.5, **(held_out if step == 2 else {})})
    return shown


def test_a_training_is_shown_once_a_second_and_at_its_end_with_the_time_left(monkeypatch):
    one, two, three, four = watched(monkeypatch, [0.0, 0.4, 2.0, 2.4, 2.8])
    assert one == (1, 4)
    assert two[3] == "step 2 of 4, loss 0.5, 2.0 s left"
    assert three == (3, 4)
    assert four[3] == "step 4 of 4, loss 0.25, 0.0 s left"
    assert two[2].size == four[2].size == (512, 256)


def test_the_plan_is_shown_before_the_first_step_and_the_time_counts_from_then_on(monkeypatch):
    watched(monkeypatch, [0.0] * 5)
    module = importlib.import_module("pack.alignguard_nodes.shown.training_watch")
    shown, times = [], iter([0.0, 60.0, 62.0])
    watch = module.TrainingWatch(lambda *what: shown.append(what), clock=lambda: next(times))
    watch.planned(Plan(2, "none", expected_s=8.0, timed="4 rows took 1.0 s"))
    watch(1, 4, {"loss": 1.0, "implicit_accuracy": 0.5})
    assert shown[0][3].startswith("plan: 2 pairs at once, checkpointing none; ")
    assert "about 8.0 s expected (4 rows took 1.0 s)" in shown[0][3]
    assert shown[1][3] == "step 1 of 4, loss 1, 6.0 s left"


def test_the_accuracy_on_held_out_pairs_is_in_the_live_picture(monkeypatch):
    seconds = [0.0, 0.4, 2.0, 2.4, 2.8]
    plain, held = (watched(monkeypatch, seconds, own) for own in ({}, {"validation_implicit_accuracy": 1.0}))
    assert plain[3][2].tobytes() != held[3][2].tobytes()


@pytest.mark.parametrize("num_layers", [1, 7, 1500])
@pytest.mark.parametrize("kept", [1.0, 0.5])
def test_a_merge_is_drawn_with_every_members_colour_in_its_share(num_layers, kept):
    names = [f"down_blocks.{i % 3}.attentions.{i}.proj_in" for i in range(num_layers)]
    layers = {name: LowRank(torch.ones(4, 1), torch.ones(1, 4)) for name in names}
    facts = {
        "members": [{"name": name, "strength": 1.0} for name in ("a", "ß漢", "c")],
        "winners": {name: [2, 1, 0] for name in names},
        "member_norms": {name: [1.0, 2.0, 0.0] for name in names},
        "kept_energy_per_layer": dict.fromkeys(names, kept),
    }
    merged = merge_facts({f"alignguard.{key}": json.dumps(value) for key, value in facts.items()}, layers)
    module = load("shown/merge_picture")
    picture = module.draw_merge(merged)
    top = module.LINE * (3 + 3)
    column = [picture.getpixel((module.MARGIN, top + y)) for y in range(module.SHARES)]
    first, second, third = (ImageColor.getrgb(colour) for colour in module.COLOURS[:3])
    assert abs(column.count(first) - module.SHARES / 2) <= 2
    assert abs(column.count(second) - module.SHARES / 4) <= 2
    assert third not in column
    assert abs(column.count(ImageColor.getrgb(module.UNWON)) - module.SHARES / 4) <= 2


def test_a_merge_of_nothing_at_all_is_drawn_too():
    layers = {"mid_block.attentions.0.proj_in": LowRank(torch.zeros(4, 1), torch.zeros(1, 4))}
    facts = merge_facts({"alignguard.members": json.dumps([{"name": "a", "strength": 1}])}, layers)
    assert load("shown/merge_picture").draw_merge(facts).size[0] > 0
