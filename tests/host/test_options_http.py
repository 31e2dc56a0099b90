"""A ComfyUI as people set it up: folders elsewhere and with blanks, links, several users, two installs.

One server has all of it at once: --base-directory, --output-directory, --extra-model-paths-config,
--multi-user and --disable-metadata, models in linked folders, and a second copy of the pack.
"""

import json
import shutil
import urllib.request

import pytest
from PIL import Image

from api_graphs import HATE, SHOCKING, add_expert, add_render, node, with_model
from base_folder import NOT_COPIED, PACK, PACK_NAME, PAIRS, link_folder, place_mini
from comfy_server import ComfyServer
from routes_of_files import routes_that_give
from training.experts.expert import load_expert

pytestmark = pytest.mark.host

SECOND = "align guard-copy"
LINKED = "linked experts-3"  # a folder of LoRAs that is a link
APPLIED = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}


@pytest.fixture(scope="module")
def elsewhere(mini, tmp_path_factory):
    """A running ComfyUI with the mini model, whose folders are not where they are by default."""
    root = tmp_path_factory.mktemp("my comfy-ui")
    shared, disk, output = root / "shared models-2", root / "other disk", root / "my output-4"
    paths = {"base_path": str(shared), "checkpoints": "check points", "safety_experts": "my experts"}
    (root / "paths.yaml").write_text(json.dumps({"shared": paths}), encoding="utf-8")  # JSON is YAML
    folders = ("--output-directory", str(output), "--extra-model-paths-config", str(root / "paths.yaml"))
    server = ComfyServer(root / "base folder-1", extra=(*folders, "--multi-user", "--disable-metadata"))
    place_mini(server.base_dir, mini)
    for source, target in (
        (server.models_dir / "checkpoints", shared / "check points"),
        (server.models_dir / "safety_experts", shared / "my experts"),
        (server.pairs_dir, disk / "pairs"),
    ):
        target.parent.mkdir(exist_ok=True)
        shutil.move(source, target)
    link_folder(disk / "pairs", server.base_dir / PAIRS)
    link_folder(shared / "my experts", server.models_dir / "loras" / LINKED)
    second = server.base_dir / "custom_nodes" / SECOND
    shutil.copytree(PACK, second, ignore=shutil.ignore_patterns(*NOT_COPIED))
    server.output_dir = output
    with server:
        yield server


def pictures(server, name: str) -> list[Image.Image]:
    """Return the pictures that SaveImage `<name>` wrote."""
    return [Image.open(file) for file in sorted((server.output_dir / "tests").glob(f"{name}_*.png"))]


def applied(graph: dict, name: str, file: str) -> dict:
    """Draw with the expert of a file by our node, and by the stock loader if its lists have it."""
    add_expert(graph, f"{name}_expert", file)
    inputs = {"model": ("ckpt", 0), "expert": (f"{name}_expert", 1)}
    graph[f"{name}_applied"] = node("AlignGuardApplySafetyExpert", **inputs, **APPLIED)
    return add_render(graph, name, (f"{name}_applied", 0))


def by_stock_loader(graph: dict, name: str, file: str) -> dict:
    """Draw with a LoRA by the stock loader."""
    inputs = {"model": ("ckpt", 0), "lora_name": file, "strength_model": 1.0}
    graph[f"{name}_loaded"] = node("LoraLoaderModelOnly", **inputs)
    return add_render(graph, name, (f"{name}_loaded", 0))


def test_two_installs_side_by_side_load_and_every_node_is_there(elsewhere):
    log = elsewhere.log_text()
    assert "IMPORT FAILED" not in log
    for name in (PACK_NAME, SECOND):
        loaded = [line for line in log.splitlines() if line.rstrip().endswith(f"custom_nodes/{name}")]
        assert len(loaded) == 1, loaded
    ours = {name for name in elsewhere.object_info() if name.startswith("AlignGuard")}
    assert len(ours) == len(list((PACK / "alignguard_nodes" / "web" / "docs").glob("*.md")))


def test_models_of_extra_paths_and_linked_folders_draw_into_the_output_directory(elsewhere):
    graph = applied(applied(with_model(), "extra", SHOCKING), "linked", f"{LINKED}/{SHOCKING}")
    elsewhere.run(by_stock_loader(add_render(graph, "base", ("ckpt", 0)), "stock", f"{LINKED}/{SHOCKING}"))
    drawn = {name: pictures(elsewhere, name) for name in ("extra", "linked", "stock", "base")}
    assert {name: len(files) for name, files in drawn.items()} == dict.fromkeys(drawn, 1)
    pixels = {name: picture.tobytes() for name, (picture,) in drawn.items()}
    assert pixels["extra"] == pixels["linked"] == pixels["stock"] != pixels["base"]
    assert all(picture.info == {} for (picture,) in drawn.values())  # no prompt, no graph


def test_an_expert_is_saved_with_its_facts_in_the_output_directory_and_listed_at_once(elsewhere):
    graph = add_expert(add_expert({}), "other", HATE)
    merged = {"expert_1": ("expert", 1), "expert_2": ("other", 1), "method": "concat"}
    graph["merge"] = node("AlignGuardMergeSafetyExperts", **merged)
    saved = {"expert": ("merge", 0), "filename_prefix": "merged", "dtype": "fp32"}
    elsewhere.run(graph | {"save": node("AlignGuardSaveSafetyExpert", **saved)})
    file = "alignguard/merged_00001_.safetensors"
    assert load_expert(elsewhere.output_dir / "loras" / file).categories == ("hate", "shocking")
    assert not any(path.is_file() for path in (elsewhere.base_dir / "output").rglob("*"))
    spec = elsewhere.object_info("AlignGuardLoadSafetyExpert")["AlignGuardLoadSafetyExpert"]["input"]
    assert file in json.dumps(spec["required"]["expert_name"])


def test_no_user_is_shown_or_served_a_picture_of_a_pair(elsewhere):
    body = json.dumps({"username": "anna"}).encode()
    request = urllib.request.Request(f"{elsewhere.url}/users", data=body)
    with urllib.request.urlopen(request, timeout=60) as answer:
        anna = json.load(answer)
    names = sorted(file.name for file in (elsewhere.pairs_dir / "alignguard_pairs/hate").glob("*.png"))
    assert len(names) > 1
    for user in (anna, "default", "__alignguard", ""):
        assert routes_that_give(elsewhere, "alignguard_pairs/hate", names[:2], user) == []
