"""Resume states: never torn, the two newest kept, and an optimizer that continues as if never stopped."""

import pytest
import torch
from torch import nn

from training.trainer.state import State, load_newest, pack, save_state, unpack


def state(step):
    return State(step, {"x": torch.full((2,), float(step))}, {"losses": [0.1] * step})


def parameters_and_optimizer():
    parameters = {f"block.{i}.up": nn.Parameter(torch.full((2, 2), float(i))) for i in range(3)}
    return parameters, torch.optim.AdamW(parameters.values(), lr=0.1)


def descend(parameters, optimizer):
    optimizer.zero_grad()
    sum((parameter - 5).square().sum() for parameter in parameters.values()).backward()
    optimizer.step()


def test_the_newest_state_comes_back(tmp_path):
    for step in (1, 2):
        save_state(tmp_path / "state", state(step))
    newest = load_newest(tmp_path / "state")
    assert newest.step == 2
    assert torch.equal(newest.tensors["x"], torch.tensor([2.0, 2.0]))
    assert newest.values == {"losses": [0.1, 0.1]}


def test_two_states_are_kept(tmp_path):
    for step in (1, 9, 10, 100):
        save_state(tmp_path, state(step))
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "step_00000010.safetensors",
        "step_00000100.safetensors",
    ]


def test_a_run_that_went_back_leaves_no_later_state(tmp_path):
    for step in (4, 8, 12):
        save_state(tmp_path, state(step))
    assert save_state(tmp_path, state(7)).is_file()
    assert load_newest(tmp_path).step == 7
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000007.safetensors"]


@pytest.mark.parametrize("keep", [0, 5, 50, -1])
def test_a_torn_state_is_skipped(tmp_path, keep, caplog):
    save_state(tmp_path, state(1))
    newest = save_state(tmp_path, state(2))
    newest.write_bytes(newest.read_bytes()[:keep])
    assert load_newest(tmp_path).step == 1
    assert newest.name in caplog.text


def test_a_folder_without_a_whole_state_gives_none(tmp_path):
    assert load_newest(tmp_path / "nothing") is None
    (tmp_path / "step_00000001.safetensors").write_bytes(b"")
    assert load_newest(tmp_path) is None


def test_a_file_left_by_a_killed_write_is_ignored(tmp_path):
    (tmp_path / "writing.tmp").write_bytes(b"half a state")
    assert load_newest(tmp_path) is None
    save_state(tmp_path, state(3))
    assert load_newest(tmp_path).step == 3


def test_an_optimizer_continues_bit_for_bit(tmp_path):
    parameters, optimizer = parameters_and_optimizer()
    for _ in range(3):
        descend(parameters, optimizer)
    save_state(tmp_path, State(3, pack(parameters, optimizer), {}))
    others, other_optimizer = parameters_and_optimizer()
    unpack(load_newest(tmp_path).tensors, others, other_optimizer)
    for pair in ((parameters, optimizer), (others, other_optimizer)):
        descend(*pair)
    assert all(torch.equal(parameters[name], others[name]) for name in parameters)


def test_a_state_of_other_modules_is_refused_and_changes_nothing():
    parameters, optimizer = parameters_and_optimizer()
    tensors = pack(parameters, optimizer)
    del tensors["adapter.block.0.up"]
    before = [parameter.clone() for parameter in parameters.values()]
    with pytest.raises(ValueError, match="Resume with the same model and targets"):
        unpack(tensors, parameters, optimizer)
    assert all(torch.equal(*both) for both in zip(before, parameters.values(), strict=True))
