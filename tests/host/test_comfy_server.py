"""The test harness against a real ComfyUI: start, prompts, readable errors, and no process left running."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from comfy_server import ComfyError, ComfyServer

pytestmark = pytest.mark.host


def picture(size: int = 64, **changes) -> dict:
    image = {"width": size, "height": size, "batch_size": 1, "color": 255} | changes
    return {
        "1": {"class_type": "EmptyImage", "inputs": image},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "harness"}},
    }


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A server without models, because these tests need none."""
    with ComfyServer(tmp_path_factory.mktemp("bare")) as server:
        yield server


def test_a_prompt_runs_and_its_saved_files_are_returned(bare):
    entry = bare.run(picture())
    (saved,) = bare.saved_files(entry)
    assert saved.parent == bare.output_dir
    assert saved.is_file()


def test_the_pack_is_loaded(bare):
    assert "IMPORT FAILED): " not in bare.log_text()
    assert [name for name in bare.object_info() if name.startswith("AlignGuard")]


def test_a_refused_prompt_names_the_node_and_the_input(bare):
    with pytest.raises(ComfyError, match=r"node 1 \(EmptyImage\): .*width"):
        bare.run(picture(width=-1))


def test_the_error_of_a_failing_node_names_it_and_quotes_its_message(bare):
    (bare.models_dir / "checkpoints" / "broken.safetensors").write_bytes(b"not a checkpoint")
    prompt = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "broken.safetensors"}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["1", 2]}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    }
    with pytest.raises(ComfyError, match=r"node 1 \(CheckpointLoaderSimple\): .*\w+"):
        bare.run(prompt)


def test_an_uploaded_file_arrives_in_the_input_folder(bare, tmp_path):
    source = tmp_path / "note.txt"
    source.write_bytes(b"\x00\r\n--x")
    uploaded = bare.upload(source, subfolder="notes")
    assert uploaded["subfolder"] == "notes"
    assert (bare.input_dir / "notes" / "note.txt").read_bytes() == b"\x00\r\n--x"


def test_the_database_is_in_the_base_directory(bare):
    assert (bare.base_dir / "user" / "comfyui.db").exists()


def test_the_error_of_a_server_that_dies_at_start_quotes_its_log(tmp_path):
    with pytest.raises(
        ComfyError, match="(?s)not running any more.*unrecognized arguments: --no-such-option"
    ):
        ComfyServer(tmp_path, extra=["--no-such-option"]).start()


ORPHAN = """
import os, sys
from comfy_server import ComfyServer
server = ComfyServer(sys.argv[1])
server.start()
print(server.url, flush=True)
os._exit(9)
"""


def test_a_server_ends_when_the_tests_are_killed(tmp_path):
    paths = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-c", ORPHAN, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})
    url = result.stdout.strip()
    assert url, result.stderr
    deadline = time.monotonic() + 20
    while _answers(url):
        assert time.monotonic() < deadline, "the server outlived its parent"
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url + "/system_stats", timeout=5)
    except OSError:
        return False
    return True
