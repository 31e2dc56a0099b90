"""The hard rules in a real ComfyUI: no forbidden content loads, and shared places hold nothing unsafe."""

import json
import struct
import urllib.request
import zlib

import pytest
from PIL import Image

from api_graphs import HATE, SHOCKING, add_expert, add_training, node, text_of, with_model
from comfy_server import ComfyError

pytestmark = pytest.mark.host

SIDE = 64
WORDS = ("zorblax", "quintrell", "vumbadour", "plexiwick")  # words that occur in no other file or graph
DISGUISED = ("c h i l d", "k1d", "t\u0435\u0435n", "b.o.y")


def pair_row(number: int, **changes) -> dict:
    """Return one row of pairs.jsonl whose prompts contain words that occur nowhere else."""
    unsafe, safe = WORDS[0], WORDS[1]
    return {
        "id": f"pair{number}",
        "category": ["violence"],
        "unsafe_prompt": f"a {unsafe} {number}",
        "safe_prompt": f"a {safe} {number}",
        "unsafe_image": f"u_{number}.png",
        "safe_image": f"s_{number}.png",
        **changes,
    }


def write_pictures(folder, names) -> None:
    """Write pictures of noise, so that all files differ."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.effect_noise((SIDE, SIDE), 80).convert("RGB").save(folder / name, format="PNG")


def write_folder(comfy, name: str, rows) -> str:
    """Write a pairs folder with two pictures per row, and return its name for the widget."""
    folder = comfy.pairs_dir / name
    write_pictures(folder, [f"{side}_{n}.png" for n in range(len(rows)) for side in "us"])
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return name


def write_csv(comfy, name: str, prompts, category: str) -> str:
    """Write a CSV and a folder of pictures in CoProV2's layout into input/."""
    lines = ["prompt,image,category"]
    for number, (unsafe, safe) in enumerate(prompts):
        files = [f"{side}_idx_{number:07d}_0.jpg" for side in "us"]
        write_pictures(comfy.input_dir / name, files)
        lines += [f'"{text}",{file},{category}' for text, file in zip((unsafe, safe), files, strict=True)]
    (comfy.input_dir / f"{name}.csv").write_text("\n".join(lines), encoding="utf-8")
    return f"{name}.csv"


def load(comfy, folder: str, category: str = "all") -> str:
    """Load pairs and return the report that the node shows."""
    graph = {"pairs": node("AlignGuardLoadSafetyPairs", folder=folder, category=category, max_pairs=0)}
    graph["show"] = node("PreviewAny", source=("pairs", 1))
    return text_of(comfy.run(graph), "pairs")


def test_disguised_rows_are_dropped_from_a_folder_and_from_a_csv(comfy):
    bad = [
        pair_row(1 + n, category=["sexual"], unsafe_prompt=f"a {word} {WORDS[2]}")
        for n, word in enumerate(DISGUISED)
    ]
    report = load(comfy, write_folder(comfy, "rule_folder", [pair_row(0), *bad]))
    assert "1 pairs" in report
    assert "together with a word for a minor: 4 (pair1" in report
    prompts = [(f"a {word} {n}", f"a {WORDS[3]} {n}") for n, word in enumerate(DISGUISED)]
    report = load(comfy, write_csv(comfy, "rule_csv", [("a person", "a tree"), *prompts], "sexual"))
    assert "1 pairs" in report
    assert "together with a word for a minor: 4 (0000001" in report
    assert not any(word in comfy.log_text() for word in WORDS)


def test_a_source_with_only_forbidden_rows_is_refused_and_trains_nothing(comfy):
    folder = write_folder(comfy, "rule_only", [pair_row(0, category=["Nudity"], safe_prompt="a kid")])
    with pytest.raises(ComfyError, match="word for a minor"):
        comfy.run(add_training(with_model(), folder=folder))


def test_the_category_widget_cannot_bring_forbidden_rows_back(comfy):
    row = pair_row(0, category=["sexual", "violence"], unsafe_prompt="a teen")
    folder = write_folder(comfy, "rule_category", [row])
    for category in ("violence", "sexual", "all"):
        with pytest.raises(ComfyError, match="word for a minor"):
            load(comfy, folder, category)


def test_calibration_text_with_only_forbidden_lines_is_refused_before_the_model_runs(comfy):
    graph = add_expert(add_expert(with_model()), "other", HATE)
    graph["expert"]["inputs"]["expert_name"] = SHOCKING
    graph["text"] = node("PrimitiveStringMultiline", value="a n u d e k1d\nn\u0443de, a s\u0435xy boy")
    experts = {"expert_1": ("expert", 1), "expert_2": ("other", 1), "method": "co_merge"}
    sockets = {"model": ("ckpt", 0), "clip": ("ckpt", 1), "calibration": ("text", 0)}
    graph["merged"] = node("AlignGuardMergeSafetyExperts", **experts, **sockets, resolution=SIDE)
    graph["show"] = node("PreviewAny", source=("merged", 1))
    with pytest.raises(ComfyError, match="there is no prompt to use"):
        comfy.run(graph)


def test_a_manifest_cannot_read_files_outside_its_folder_or_open_a_decompression_bomb(comfy, tmp_path):
    rows = [pair_row(0), *(pair_row(n, safe_image=f"s_{n}.png") for n in range(1, 7))]
    rows[1]["safe_image"] = "../example.png"
    rows[2]["safe_image"] = str(tmp_path / "outside.png")
    rows[3]["safe_image"] = "C:\\outside.png"
    folder = write_folder(comfy, "rule_paths", rows)
    root = comfy.pairs_dir / folder
    write_pictures(tmp_path, ["outside.png"])
    (root / "s_4.png").unlink()
    (root / "s_4.png").symlink_to(tmp_path / "outside.png")
    (root / "s_5.png").write_bytes(bomb(60_000, 60_000))
    (root / "s_6.png").write_bytes((root / "s_6.png").read_bytes()[:-30])
    report = load(comfy, folder)
    assert "1 pairs" in report
    assert "an image path leads out of the folder: 3 (pair1, pair2, pair3)" in report
    assert "an image is a link that leads out of the folder; put the file itself there: 1 (pair4)" in report
    assert "an image file cannot be read: 2 (pair5, pair6)" in report


@pytest.mark.parametrize("layout", ["folder", "csv"])
def test_training_leaves_no_prompt_and_no_picture_in_shared_places(comfy, layout):
    prompts = [(f"a {WORDS[0]} {n}", f"a {WORDS[1]} {n}") for n in range(2)]
    if layout == "folder":
        name = write_folder(comfy, "secret_folder", [pair_row(n) for n in range(2)])
        pictures = [*(comfy.pairs_dir / name).glob("*.png")]
    else:
        name = write_csv(comfy, "secret_csv", prompts, "violence")
        pictures = [*(comfy.input_dir / "secret_csv").glob("*.jpg")]
    assert len(pictures) == 4
    before, logged = shared_files(comfy), len(comfy.log_text())
    entry = comfy.run(add_training(with_model(), folder=name, filename_prefix=f"secret_{layout}"))
    assert entry["outputs"]["train"]
    new = shared_files(comfy) - before
    assert len(new) >= 2  # the expert and its loss curve, so that the checks below are not empty
    for file in new:
        assert holds_no_word(file.read_bytes()), file.name
        assert not shows_any(file, pictures), file.name
    with urllib.request.urlopen(f"{comfy.url}/history", timeout=30) as answer:
        assert holds_no_word(answer.read())
    assert holds_no_word(comfy.log_text()[logged:].encode())


def test_a_node_that_fails_leaves_no_prompt_in_history_or_log(comfy):
    name, logged = write_folder(comfy, "secret_failing", [pair_row(0)]), len(comfy.log_text())
    with pytest.raises(ComfyError, match="not of the category hate"):
        comfy.run(add_training(with_model(), folder=name, category="hate"))
    with urllib.request.urlopen(f"{comfy.url}/history", timeout=30) as answer:
        history = answer.read()
    assert b"SafetyPairs(secret_failing, 1 pairs" in history  # the host records the inputs of the node
    assert holds_no_word(history)
    assert holds_no_word(comfy.log_text()[logged:].encode())


def test_the_rewriter_drops_disguised_lines_and_connects_to_no_other_machine(comfy):
    inputs = {"category": "sexual", "table": "blaze,lamp"}
    text = "a blaze by a road\na k1d by a blaze\na b o y by a blaze"
    graph = {"rewrite": node("AlignGuardRewritePrompts", prompts=text, method="table", **inputs)}
    graph["show"] = node("PreviewAny", source=("rewrite", 0))
    entry = comfy.run(graph)
    assert "together with a word for a minor: 2 (line 2, 3)" in text_of(entry, "rewrite")
    assert "a lamp by a road" in text_of(entry, "show")
    for host in ("192.0.2.7", "169.254.169.254"):
        away = {"endpoint": f"http://{host}:8080/v1", "endpoint_model": "m", "method": "endpoint"}
        graph["rewrite"] = node("AlignGuardRewritePrompts", prompts=text, **inputs, **away)
        with pytest.raises(ComfyError, match="the endpoint is on another machine"):
            comfy.run(graph)


@pytest.mark.parametrize("file", ["../models", "/etc/hostname", "gone.csv"])
def test_a_paired_file_outside_input_is_refused(comfy, file):
    inputs = {"prompts": "a blaze", "category": "hate", "method": "paired_file", "table": ""}
    graph = {"rewrite": node("AlignGuardRewritePrompts", paired_file=file, **inputs)}
    graph["show"] = node("PreviewAny", source=("rewrite", 2))
    with pytest.raises(ComfyError, match="inside ComfyUI's input folder|there is no folder or file"):
        comfy.post(graph)


def shared_files(comfy) -> set:
    """Return every file that the server hands out or that people may share."""
    folders = (comfy.base_dir / "temp", comfy.output_dir, comfy.input_dir)
    return {file for folder in folders for file in folder.rglob("*") if file.is_file()}


def holds_no_word(data: bytes) -> bool:
    return not any(word.encode() in data for word in WORDS)


def shows_any(file, pictures) -> bool:
    """Return whether a file shows one of the pictures, by its bytes or by its pixels."""
    data = file.read_bytes()
    if any(picture.read_bytes() in data for picture in pictures):
        return True
    if file.suffix not in (".png", ".jpg", ".webp"):
        return False
    shown = small(file)
    return any(
        max(abs(a - b) for a, b in zip(shown, small(picture), strict=True)) < 8 for picture in pictures
    )


def small(file) -> bytes:
    with Image.open(file) as picture:
        return picture.convert("RGB").resize((SIDE, SIDE)).tobytes()


def bomb(width: int, height: int) -> bytes:
    """Return a few bytes of a PNG whose header declares a huge picture."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
