"""Tensor files: equal bytes for equal content, whole or not there at all, never a pickle."""

import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.system.tensors import check_finite, open_tensors, write_new, write_tensors

TENSORS = {
    "b": torch.arange(6.0).reshape(2, 3),
    "a": torch.tensor([1.5, -2.0]).half(),
    "scalar": torch.tensor(3.0),
    "bf16": torch.tensor([[0.25]], dtype=torch.bfloat16),
}


def read(path):
    with open_tensors(path) as tensors:
        return {key: tensors[key] for key in tensors}, tensors.metadata


def test_what_is_written_is_read_back_here_and_by_the_library(tmp_path):
    path = write_tensors(tmp_path / "deep" / "x.safetensors", TENSORS, {"name": "naïve"})
    for tensors in (read(path)[0], load_file(path)):
        assert tensors.keys() == TENSORS.keys()
        assert all(torch.equal(tensors[key], TENSORS[key]) for key in TENSORS)
        assert all(tensors[key].dtype == TENSORS[key].dtype for key in TENSORS)
    assert read(path)[1] == {"name": "naïve"}


def test_files_of_the_library_are_read(tmp_path):
    save_file(TENSORS, tmp_path / "x.safetensors")
    assert read(tmp_path / "x.safetensors")[0].keys() == TENSORS.keys()


def test_equal_content_gives_equal_bytes_in_any_order(tmp_path):
    metadata = {"b": "2", "a": "1", "c": "3"}
    one = write_tensors(tmp_path / "1.safetensors", TENSORS, metadata)
    two = write_tensors(
        tmp_path / "2.safetensors", dict(reversed(TENSORS.items())), dict(reversed(metadata.items()))
    )
    assert one.read_bytes() == two.read_bytes()


def test_tensors_start_on_multiples_of_their_size(tmp_path):
    path = write_tensors(tmp_path / "x.safetensors", TENSORS, {})
    content = path.read_bytes()
    assert (8 + int.from_bytes(content[:8], "little")) % 8 == 0


def test_an_existing_file_stays_as_it_is(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="x.safetensors already exists in .* Choose another name"):
        write_tensors(path, TENSORS, {})
    assert path.read_bytes() == b"precious"


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="a must be fp32, fp16 or bf16, got torch.int64"):
        write_tensors(tmp_path / "x.safetensors", {"a": torch.tensor([1])}, {})
    with pytest.raises(ValueError, match="metadata values must be strings, got another type for steps"):
        write_tensors(tmp_path / "x.safetensors", TENSORS, {"steps": 3})
    assert list(tmp_path.iterdir()) == []


def test_a_name_taken_while_writing_is_not_overwritten(tmp_path):
    path = tmp_path / "x.safetensors"

    def parts():
        path.write_bytes(b"other")
        yield b"ours"

    with pytest.raises(FileExistsError, match="already exists"):
        write_new(path, parts())
    assert path.read_bytes() == b"other"
    assert list(tmp_path.iterdir()) == [path]


def test_drives_without_hard_links_are_written_to_as_well(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    path = write_tensors(tmp_path / "x.safetensors", TENSORS, {})
    assert read(path)[0].keys() == TENSORS.keys()
    with pytest.raises(FileExistsError):
        write_tensors(path, TENSORS, {})
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("keep", [0, 4, 9, 60, -1])
def test_a_truncated_file_is_named(tmp_path, keep):
    path = write_tensors(tmp_path / "whole.safetensors", TENSORS, {})
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"cut.safetensors is (damaged or incomplete|empty).*copy it again"):
        read(cut)


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "disguised.safetensors"])
def test_a_pickle_is_refused_by_name_and_never_opened(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match=f"{name} is a pickle, which can run code"):
        read(path)
    torch.save(TENSORS, path)
    with pytest.raises(ValueError, match=f"{name} is a pickle"):
        read(path)


def test_missing_files_folders_and_other_formats_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.safetensors does not exist in"):
        read(tmp_path / "gone.safetensors")
    with pytest.raises(ValueError, match="is a folder"):
        read(tmp_path)
    (tmp_path / "notes.txt").write_text("hello, this is text")
    with pytest.raises(ValueError, match="notes.txt is not a .safetensors file"):
        read(tmp_path / "notes.txt")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_counted_and_named(dtype, value):
    tensor = torch.zeros(3, 4, dtype=dtype)
    check_finite(tensor, "x.weight", "Use another file.")
    tensor[1, 2] = tensor[0, 0] = value
    with pytest.raises(ValueError, match="x.weight: 2 of 12 values are not finite. Use another file."):
        check_finite(tensor, "x.weight", "Use another file.")


def test_whole_numbers_and_empty_tensors_are_finite():
    check_finite(torch.ones(2, dtype=torch.int64), "ids", "")
    check_finite(torch.zeros(0, 4), "nothing", "")
