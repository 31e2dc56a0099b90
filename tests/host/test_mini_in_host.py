"""ComfyUI makes the same models from a mini checkpoint as the library makes from the shipped weights."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from comfy_server import host_folder, server_environment
from training.mini.large.shipped import LARGE
from training.mini.shipped import SMALL
from training.mini.text_encoder import embed, load_text_encoder

pytestmark = pytest.mark.host

PROMPT = "a red star on a black ground"  # in the large world, all its words have stored rows
HALF = 3e-4  # mean difference, because the checkpoint stores the widened weights in fp16
SCRIPT = """
import sys
host, checkpoint, inputs_file, outputs_file = sys.argv[1:]
sys.path.insert(0, host)
sys.argv = ["main.py", "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import comfy.sd
import torch
from safetensors.torch import load_file, save_file
with torch.inference_mode():
    inputs = load_file(inputs_file)
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(checkpoint, output_vae=True, output_clip=True)
    prompt = bytes(inputs["prompt"].tolist()).decode()
    made_by_host = {
        "text": clip.encode_from_tokens(clip.tokenize(prompt)),
        "noise": model.model.diffusion_model.float()(inputs["latents"], inputs["timesteps"], inputs["text"]),
        "latents": vae.encode((inputs["pictures"].movedim(1, -1) + 1) / 2) * 0.18215,
        "pictures": vae.decode(inputs["latents"] / 0.18215).movedim(-1, 1) * 2 - 1,
    }
    save_file({name: tensor.float().contiguous() for name, tensor in made_by_host.items()}, outputs_file)
print(type(model.model.model_config).__name__)
"""


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(3)
    return {
        "latents": torch.randn(2, 4, 8, 8, generator=generator),
        "timesteps": torch.tensor([100, 900]),
        "text": torch.randn(2, 77, 768, generator=generator),
        "pictures": torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1,
        "prompt": torch.tensor(list(PROMPT.encode()), dtype=torch.uint8),
    }


@pytest.fixture(scope="module", params=[("mini", SMALL), ("large_mini", LARGE)], ids=["small", "large"])
def world(request):
    """The checkpoint of a world and its shipped weights."""
    fixture, weights = request.param
    return request.getfixturevalue(fixture)["checkpoint"], weights


@pytest.fixture(scope="module")
def host(world, inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("host")
    save_file(inputs, folder / "inputs.safetensors")
    files = [folder / "inputs.safetensors", folder / "outputs.safetensors"]
    arguments = [host_folder(), world[0], *files]
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, env=server_environment(), cwd=folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "SD15"
    return load_file(folder / "outputs.safetensors")


def test_text_embeddings_agree(host, world):
    expected = embed([PROMPT], load_text_encoder(world[1].token_rows()))
    torch.testing.assert_close(host["text"], expected, atol=1e-4, rtol=0)  # fp32 on both sides


def test_predicted_noise_agrees(host, world, inputs):
    expected = world[1].load_unet()(inputs["latents"], inputs["timesteps"], inputs["text"]).sample
    assert (host["noise"] - expected).abs().mean() < HALF


def test_latents_and_pictures_agree(host, world, inputs):
    autoencoder = world[1].load_autoencoder()
    assert (host["latents"] - autoencoder.encode(inputs["pictures"]).latents).abs().mean() < HALF
    expected = autoencoder.decode(inputs["latents"]).sample.clamp(-1, 1)
    assert (host["pictures"] - expected).abs().mean() < HALF
