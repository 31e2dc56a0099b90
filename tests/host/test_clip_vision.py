"""The judges' CLIP image embeddings agree with transformers on the same small random model."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from comfy_server import host_folder, server_environment
from virtual_environment import ROOT

pytestmark = pytest.mark.host

SIZE = 32
CONFIG = {
    "hidden_act": "quick_gelu",
    "hidden_size": 64,
    "image_size": SIZE,
    "intermediate_size": 128,
    "layer_norm_eps": 1e-5,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "patch_size": 8,
    "projection_dim": 48,
    "num_channels": 3,
}
SCRIPT = """
import sys
host, pack, config, weights, inputs, outputs = sys.argv[1:]
sys.path[:0] = [host, pack]
sys.argv = ["main.py", "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import importlib
import comfy.clip_vision
from safetensors.torch import load_file, save_file
clip_embed = importlib.import_module("alignguard.alignguard_nodes.host.pictures").clip_embed
vision = comfy.clip_vision.ClipVisionModel(config)
missing, extra = vision.load_sd(load_file(weights))
assert not missing, missing
pictures = load_file(inputs)["pictures"]
save_file({"embeds": clip_embed(vision)(pictures).contiguous()}, outputs)
"""


def test_embeddings_are_projections_of_the_centre_crop(tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPVisionModelWithProjection(CLIPVisionConfig(**CONFIG)).eval()
    state = {name: tensor for name, tensor in model.state_dict().items() if "position_ids" not in name}
    save_file(state, tmp_path / "weights.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "model_type": "clip_vision_model"}))
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs" / "alignguard").symlink_to(ROOT, target_is_directory=True)
    pictures = torch.rand(2, 3, SIZE, SIZE + 16, generator=torch.Generator().manual_seed(1))
    save_file({"pictures": pictures}, tmp_path / "inputs.safetensors")

    names = ("packs", "config.json", "weights.safetensors", "inputs.safetensors", "outputs.safetensors")
    command = [sys.executable, "-c", SCRIPT, str(host_folder()), *(str(tmp_path / name) for name in names)]
    done = subprocess.run(command, capture_output=True, text=True, env=server_environment(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    cropped = (pictures[..., 8:-8] * 255).round() / 255
    mean, spread = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # CLIP's
    pixels = (cropped - torch.tensor(mean)[:, None, None]) / torch.tensor(spread)[:, None, None]
    with torch.no_grad():
        expected = model(pixels).image_embeds
    embeds = load_file(tmp_path / "outputs.safetensors")["embeds"]
    assert embeds.shape == (2, CONFIG["projection_dim"])
    torch.testing.assert_close(embeds, expected, atol=2e-3, rtol=0)  # the host keeps these weights in fp16
