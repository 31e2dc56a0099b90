"""Hostile files by name: what each gets is what docs/hostile_files.md says, and every reader is tried."""

import io
import json
import os
import pickle
import re
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load, save

from builders import coprov2_names, pair_row, write_csv
from readers import (
    CONFIG,
    PEFT_KEYS,
    READERS,
    expert_bytes,
    factors,
    files_in,
    png,
    raised_by_us,
    tiny_guard,
    with_header,
)

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/hostile_files.md").read_text(encoding="utf-8")
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| file |")
]
DEEP = 100_000
STATE = "run state"


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return packed.getvalue()


def one_tensor(shape, offsets=(0, 8)):
    return with_header({PEFT_KEYS[0]: {"dtype": "F32", "shape": shape, "data_offsets": offsets}}, b"\0" * 8)


def many_names():
    entry = ':{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return with_header("{" + ",".join(f'"k{n}"{entry}' for n in range(10**6)) + "}")


def two_tensors(other):
    entry = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    return with_header(f'{{"a":{entry},"{other}":{entry}}}', b"\0" * 8)


def expert_with(value):
    down, up = factors()
    down[0, 0] = value
    if value == 1e20:
        down.fill_(value)
    return save(dict(zip(PEFT_KEYS, (down, up), strict=True)), metadata={"alignguard.family": "sd15"})


def row(**changes):
    return json.dumps(pair_row("1", **{"unsafe_image": "u.png", "safe_image": "s.png", **changes})).encode()


def coprov2(prompt, image):
    lines = [
        ("prompt", "image", "category"),
        ("a kite", coprov2_names(0)[1], "Hate"),  # first, because the start of the file tells its layout
        (prompt, image, "Hate"),
    ]
    file = Path(os.environ["HOSTILE_TMP"]) / "x.csv"
    return write_csv(file, lines).read_bytes()


def guard_with(tensors=None, **metadata):
    """Return the file of a guard with other tensors, and other texts in its metadata."""
    content = READERS["prompt guard"].seed()
    length = struct.unpack("<Q", content[:8])[0]
    stored = json.loads(content[8 : 8 + length])["__metadata__"]
    changed = {f"alignguard.{name}": text for name, text in metadata.items()}
    return save({**load(content), **(tensors or {})}, metadata={**stored, **changed})


def calibration_with(**changes):
    return json.dumps({**tiny_guard().calibration.facts(), **changes})


def state(values):
    return save({"adapter.x": torch.ones(2)}, metadata={"format": state_format(), "values": values})


def state_format():
    from training.trainer.state import FORMAT

    return FORMAT


def text_bomb():
    text = zlib.compress(b"a" * 100_000_000)  # 97 kB in the file

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    whole = png(8, 8)
    return whole[:33] + chunk(b"zTXt", b"x\0\0" + text) + whole[33:]


def gif():
    packed = io.BytesIO()
    Image.new("RGB", (8, 8)).save(packed, format="GIF")
    return packed.getvalue()


DEVICE, FOLDER = object(), object()  # instead of bytes: a link to a device, a folder
HOSTILE = {  # (file, reader) -> content of the attacked file, or a function that returns it
    ("a pickle", "expert"): lambda: pickle.dumps({"x": 1}),
    ("a pickle in a zip archive", "expert"): lambda: zipped(pickle.dumps({"x": 1})),
    ("a pickle called .ckpt", "expert"): expert_bytes,
    ("a device", "expert"): lambda: DEVICE,
    ("a folder", "expert"): lambda: FOLDER,
    ("a header longer than the file", "expert"): lambda: struct.pack("<Q", 10_000) + b"{}",
    ("a header of 2^60 bytes", "expert"): lambda: struct.pack("<Q", 2**60) + b"{}",
    ("a shape of 2^60 values", "expert"): lambda: one_tensor([2**30, 2**30]),
    ("a shape whose size overflows", "expert"): lambda: one_tensor([2**62, 2**62, 2]),
    ("offsets outside the data", "expert"): lambda: one_tensor([2], (2**40, 2**40 + 8)),
    ("two tensors in one place", "expert"): lambda: two_tensors("b"),
    ("a name twice in the header", "expert"): lambda: two_tensors("a"),
    ("a header nested 10^5 deep", "expert"): lambda: with_header('{"a":' * DEEP + "1" + "}" * DEEP),
    ("a value that is NaN", "expert"): lambda: expert_with(float("nan")),
    ("a value that is infinite", "expert"): lambda: expert_with(float("-inf")),
    ("finite values of 10^20", "expert"): lambda: expert_with(1e20),
    ("10^6 names", "expert"): many_names,
    ("names with `..` and `/`", "expert"): lambda: expert_bytes(
        ["../../lora_A.weight", "/etc/x.lora_B.weight"]
    ),
    ("a configuration nested 10^5 deep", "PEFT configuration"): lambda: b"[" * DEEP,
    ("a configuration of 11 MB", "PEFT configuration"): lambda: (
        json.dumps(CONFIG).encode() + b" " * 11_000_000
    ),
    ("alpha is NaN", "PEFT configuration"): lambda: json.dumps(
        {**CONFIG, "lora_alpha": float("nan")}
    ).encode(),
    ("alpha of 400 digits", "PEFT configuration"): lambda: json.dumps(
        {**CONFIG, "lora_alpha": 10**400}
    ).encode(),
    ("10^6 patterns", "PEFT configuration"): lambda: json.dumps(
        {**CONFIG, "rank_pattern": {f"p{n}": 1 for n in range(10**6)}}
    ).encode(),
    ("another method", "PEFT configuration"): lambda: json.dumps({**CONFIG, "peft_type": "LOHA"}).encode(),
    ("a device", "pairs manifest"): lambda: DEVICE,
    ("a picture path with `..`", "pairs manifest"): lambda: row(safe_image="../s.png"),
    ("an absolute picture path", "pairs manifest"): lambda: row(safe_image="/dev/zero"),
    ("a picture that is a device", "pairs manifest"): lambda: row(safe_image="device.png"),
    ("a name twice in a row", "pairs manifest"): lambda: row().replace(b'"id"', b'"category": "x", "id"'),
    ("a row nested 10^5 deep", "pairs manifest"): lambda: b'{"a":' * DEEP,
    ("NUL bytes", "pairs manifest"): lambda: row() + b"\n\0\0\n",
    ("a picture path with `..`", "CoProV2"): lambda: coprov2("a skull", "../u_idx_0000000_0.jpg"),
    ("a cell of 10^6 letters", "CoProV2"): lambda: coprov2("a" * 10**6, coprov2_names(0)[0]),
    ("a quote that never closes", "CoProV2"): lambda: (
        b'prompt,image,category\n"a skull,u_idx_0000000_0.jpg,Hate\n'
    ),
    ("a zip archive", "prompts in CSV"): lambda: zipped(b"x"),
    ("a column twice", "prompts in CSV"): lambda: b"prompt,category,category\na skull,hate,sexual\n",
    ("a device", "prompts in CSV"): lambda: DEVICE,
    ("a list nested 10^5 deep", "prompts in JSON"): lambda: b"[" * DEEP,
    ("a name twice in an object", "prompts in JSON"): lambda: b'[{"prompt": "a", "prompt": "b"}]',
    ("half a surrogate pair", "prompts in JSON"): lambda: b'[{"prompt": "\\ud800"}]',
    ("bytes that are not text", "prompts in text"): lambda: b"hate: caf\xe9\n",
    ("an image bomb of 60,000 x 60,000", "picture"): lambda: png(60_000, 60_000),
    ("a text bomb beside the pixels", "picture"): text_bomb,
    ("a picture cut off", "picture"): lambda: READERS["picture"].seed()[:-20],
    ("a strip of 1 x 8192", "picture"): lambda: png(1, 8192, b"\0\0\0\0" * 8192),
    ("another format under this name", "picture"): gif,
    ("a device", "picture"): lambda: DEVICE,
    ("a pickle", "prompt guard"): lambda: pickle.dumps({"x": 1}),
    ("a device", "prompt guard"): lambda: DEVICE,
    ("a LoRA", "prompt guard"): expert_bytes,
    ("a value that is NaN", "prompt guard"): lambda: guard_with({"scale": torch.tensor(torch.nan)}),
    ("a weight of 8 bits", "prompt guard"): lambda: guard_with(
        {"scale": torch.zeros((), dtype=torch.float8_e4m3fn)}
    ),
    ("sizes of a head of 4 TB", "prompt guard"): lambda: guard_with(
        {"key.weight": torch.zeros(10**6, 1), "prompt_out.bias": torch.zeros(10**6)}
    ),
    ("a bias without a size", "prompt guard"): lambda: guard_with({"prompt_out.bias": torch.tensor(0.0)}),
    ("concepts nested 10^5 deep", "prompt guard"): lambda: guard_with(concepts="[" * DEEP),
    ("10^6 concepts", "prompt guard"): lambda: guard_with(concepts=json.dumps([["a", ""]] * 10**6)),
    ("half a surrogate pair", "prompt guard"): lambda: guard_with(
        concepts='[["sword", "\\ud800"], ["axe", ""]]'
    ),
    ("10^15 calibration prompts", "prompt guard"): lambda: guard_with(
        calibration=calibration_with(num_measured=10**15)
    ),
    ("a threshold of NaN", "prompt guard"): lambda: guard_with(
        calibration=calibration_with(threshold=float("nan"))
    ),
    ("a pickle", "safety cost model"): lambda: pickle.dumps({"x": 1}),
    ("a device", "safety cost model"): lambda: DEVICE,
    ("a LoRA", "safety cost model"): expert_bytes,
    ("a torn state", STATE): lambda: READERS[STATE].seed()[:-3],
    ("values that are not a mapping", STATE): lambda: state("[1]"),
    ("values nested 10^5 deep", STATE): lambda: state("[" * DEEP),
    ("no step in the values", STATE): lambda: state("{}"),
    ("a device", STATE): lambda: DEVICE,
}


def test_the_page_names_exactly_the_files_that_are_tried_and_every_reader():
    assert [(file, reader) for file, reader, _ in ROWS] == list(HOSTILE)
    without = {"prompts in JSON lines"}  # the rows of a manifest, read by the same function
    assert {reader for _, reader in HOSTILE} == READERS.keys() - without


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize(("file", "name", "gets"), ROWS)
def test_a_hostile_file_gets_what_the_page_says(file, name, gets, tmp_path, monkeypatch):
    monkeypatch.setenv("HOSTILE_TMP", str(tmp_path))
    reader, folder = READERS[name], tmp_path / "in"
    folder.mkdir()
    reader.prepare(folder)
    content, path = HOSTILE[file, name](), folder / reader.file
    if content is DEVICE:
        path.symlink_to("/dev/zero")
    elif content is FOLDER:
        path.mkdir()
    else:
        path.write_bytes(content)
    if name == "pairs manifest":
        (folder / "device.png").symlink_to("/dev/zero")
    read = reader.read
    if file.endswith(".ckpt"):
        path.rename(path.with_suffix(".ckpt"))
        read = read_ckpt
    before = files_in(tmp_path)
    if name == STATE:
        assert read(folder) is None
    else:
        with pytest.raises((ValueError, FileNotFoundError)) as refused:
            read(folder)
        assert raised_by_us(refused.value)
        assert re.search(re.escape(gets.strip("`")), str(refused.value)), str(refused.value)
        assert len(str(refused.value)) < 2000
    assert files_in(tmp_path) == before


def read_ckpt(folder):
    from training.experts.expert import load_expert

    return load_expert(folder / "e.ckpt")
