"""Train Safety DPO when it is executed, with tiny inputs; tests/host does the same in a real host.

The border to the host (`alignguard_nodes.host`) is a stand-in, because its modules cannot be imported here;
the training itself is real.
"""

import json
import sys
import types
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from tiny_checkpoint import SD15, SIDE, tiny_models, write_pairs

BRIEF = {"steps": 2, "batch_size": 2, "rank": 2, "resolution": SIDE, "category": "auto"}


def stand_in(pack, folder, num_baked=0):
    """Return the border to a host whose MODEL is the tiny UNet, and the list of what it shows."""
    family = pack("training.models").FAMILIES["sd15"]
    conditioning = pack("training.models.conditioning").Conditioning
    unet = tiny_models()["unet"].requires_grad_(False)
    host = types.ModuleType("pack.alignguard_nodes.host")
    shown = []

    @contextmanager
    def borrowed_unet(model, precision, *, bake_patches):
        facts = {"schedule": family.schedule(), "weights_hash": "b" * 64, "num_baked": num_baked}
        yield SimpleNamespace(unet=unet, family=family, **facts)

    host.borrowed_unet = borrowed_unet
    host.check_trainable = lambda model, *, bake_patches: family
    host.encoders = lambda *_: pack("training.pairs.encode").Encoders(
        image=lambda pixels: torch.nn.functional.avg_pool2d(pixels, 8)[:, [0, 1, 2, 2]],
        prompt=lambda text: conditioning(torch.full((1, 77, SD15.text_width), len(text) / 50)),
        id="tiny",
    )
    host.output_folder = lambda: folder / "output"
    host.private_folder = lambda name: folder / "user" / name
    host.progress = lambda node_id: lambda *report: shown.append(report)
    host.check_cancel = lambda: None
    host.outside_inference_mode = nullcontext
    host.image_tensor = lambda image: image
    host.Blocked = lambda reason: SimpleNamespace(reason=reason)
    return host, shown


@pytest.fixture
def execute(pack, monkeypatch, tmp_path):
    """Return a function that executes the node; `change` gets the border to the host first."""

    def run(num_baked=0, change=lambda host: None, **settings):
        host, shown = stand_in(pack, tmp_path, num_baked)
        change(host)
        monkeypatch.setitem(sys.modules, host.__name__, host)
        pack("alignguard_nodes").host = host
        folder = tmp_path / "pairs"
        pairs = pack("training.pairs").load_pairs(
            folder if folder.exists() else write_pairs(folder, "hate", 4)
        )
        node = pack("alignguard_nodes.train_safety_dpo")
        node.host = host  # the module may be that of an earlier call, with its host
        return node.TrainSafetyDPO.execute(None, None, None, pairs, **{**BRIEF, **settings}), shown

    return run


def test_a_run_trains_saves_and_reports(execute, tmp_path):
    done, shown = execute(num_baked=3, bake_patches=True, validation=0.25, validate_every=1)
    expert, losses, report, saved_as, accuracy = done.values
    (file,) = (tmp_path / "output" / "loras" / "alignguard").iterdir()
    assert file.name == expert.name == "alignguard_hate_00001_.safetensors"
    assert saved_as == f"alignguard/{file.name}"  # as the LoRA lists name a file in output/loras
    assert 0 <= accuracy <= 1
    assert len(losses["loss"]) == 2
    for line in (
        f"saved as loras/alignguard/{file.name}",
        "3 weights include patches of the MODEL as part of the base model",
        "2 steps in ",
        "plan: 2 pairs at once, checkpointing none",
        "step 2: preference ",
        "held-out pairs: margin ",
        "on held-out pairs: margin ",
    ):
        assert line in report
    assert done.ui["text"] == (report,)
    assert done.ui["images"][0].size == (512, 256)
    assert shown[-1][:2] == (2, 2)
    run_folder = tmp_path / "user" / "runs" / "alignguard_hate"
    assert (run_folder / "expert.safetensors").read_bytes() == file.read_bytes()
    figures = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in figures] == losses["loss"]


def test_a_cancelled_run_can_be_resumed_without_save_every(execute, tmp_path):
    def cancel(host):
        host.check_cancel = MagicMock(side_effect=[None, None, KeyboardInterrupt])

    whole = execute(steps=3, filename_prefix="whole")[0].values
    with pytest.raises(KeyboardInterrupt):
        execute(change=cancel, steps=3, filename_prefix="broken")
    resumed = execute(steps=3, filename_prefix="broken", resume=True)[0].values
    assert resumed[0].content_hash == whole[0].content_hash
    assert resumed[1] == whole[1]


def test_the_report_lists_what_a_preset_set_and_no_patches_if_there_are_none(execute, pack, monkeypatch):
    monkeypatch.setitem(pack("training.config").PRESETS, "quick", {"steps": 1, "batch_size": 3})
    done = execute(preset="quick")
    report = done[0].values[2]
    assert "preset quick: steps 1, batch_size 3" in report
    assert "1 steps in " in report
    assert "patches of the MODEL" not in report
    assert "held-out pairs: not measured" in report
    assert "Set validation above 0" in done[0].values[4].reason  # blocked, not zero


def test_a_model_that_cannot_be_trained_is_refused_before_anything_is_encoded(execute):
    def refuse(host):
        def check(model, *, bake_patches):
            raise ValueError("not a plain one")

        host.check_trainable = check
        host.encoders = lambda *_: pytest.fail("it encoded")

    with pytest.raises(ValueError, match="not a plain one"):
        execute(change=refuse)
