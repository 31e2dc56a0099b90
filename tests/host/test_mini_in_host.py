"""ComfyUI makes the same models from a mini checkpoint as the library makes from the shipped weights."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from comfy_server import host_folder, server_environment
from training.mini.flow import REPEATS
from training.mini.flow.checkpoint import POOLED_WIDTH, TEXT_WIDTH
from training.mini.flow.drawing import encode, predict
from training.mini.flow.shipped import FLOW
from training.mini.large.shipped import LARGE
from training.mini.shipped import SMALL
from training.mini.text_encoder import embed, load_text_encoder
from training.models.conditioning import Conditioning

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
    space, network = model.model.latent_format, model.model.diffusion_model.float()
    text, pooled = clip.encode_from_tokens(clip.tokenize(prompt), return_pooled=True)
    conditioning = {"context": inputs["text"]} | ({"y": inputs["pooled"]} if "pooled" in inputs else {})
    made_by_host = {
        "text": text,
        "pooled": pooled,
        "noise": network(inputs["latents"], inputs["timesteps"], **conditioning),
        "latents": space.process_in(vae.encode((inputs["pictures"].movedim(1, -1) + 1) / 2)),
        "pictures": vae.decode(space.process_out(inputs["latents"])).movedim(-1, 1) * 2 - 1,
    }
    save_file({name: tensor.float().contiguous() for name, tensor in made_by_host.items()}, outputs_file)
print(type(model.model.model_config).__name__)
"""


@pytest.fixture(scope="module")
def inputs():
    return inputs_of(channels=4, text_width=768)


@pytest.fixture(scope="module", params=[("mini", SMALL), ("large_mini", LARGE)], ids=["small", "large"])
def world(request):
    """The checkpoint of a world and its shipped weights."""
    fixture, weights = request.param
    return request.getfixturevalue(fixture)["checkpoint"], weights


@pytest.fixture(scope="module")
def host(world, inputs, tmp_path_factory):
    return made_by_host(world[0], inputs, tmp_path_factory.mktemp("host"), "SD15")


@pytest.fixture(scope="module")
def flow(flow_mini, tmp_path_factory):
    """What goes into the mini flow, and what the host makes of it."""
    inputs = inputs_of(channels=16, text_width=TEXT_WIDTH)
    inputs["text"][..., 768:] = 0  # as the host pads it
    inputs["pooled"] = torch.randn(2, POOLED_WIDTH, generator=torch.Generator().manual_seed(4))
    made = made_by_host(flow_mini["checkpoint"], inputs, tmp_path_factory.mktemp("flow"), "SD3")
    return inputs, made


def inputs_of(*, channels: int, text_width: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "latents": torch.randn(2, channels, 8, 8, generator=generator),
        "timesteps": torch.tensor([100, 900]),
        "text": torch.randn(2, 77, text_width, generator=generator),
        "pictures": torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1,
        "prompt": torch.tensor(list(PROMPT.encode()), dtype=torch.uint8),
    }


def made_by_host(checkpoint, inputs, folder, model: str) -> dict[str, torch.Tensor]:
    save_file(inputs, folder / "inputs.safetensors")
    files = [folder / "inputs.safetensors", folder / "outputs.safetensors"]
    command = [sys.executable, "-c", SCRIPT, *map(str, [host_folder(), checkpoint, *files])]
    result = subprocess.run(command, capture_output=True, text=True, env=server_environment(), cwd=folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == model
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


def test_the_flow_reads_prompts_as_the_host_encodes_them(flow):
    _, made = flow
    expected = encode([PROMPT])
    for name, actual in (("text", expected.text_embeds), ("pooled", expected.pooled)):
        torch.testing.assert_close(made[name][..., :768], actual, atol=1e-4, rtol=0)  # fp32 on both sides
        assert not made[name][..., 768:].any()


def test_the_velocity_of_the_flow_agrees(flow):
    inputs, made = flow
    prompts = Conditioning(inputs["text"][..., :768], inputs["pooled"][:, :768])
    expected = predict(FLOW.load_transformer(), inputs["latents"], inputs["timesteps"] / 1000, prompts)
    assert (made["noise"] - expected).abs().mean() < HALF


def test_latents_and_pictures_of_the_flow_are_those_of_the_small_world(flow):
    inputs, made = flow
    autoencoder = FLOW.load_autoencoder()
    encoded = autoencoder.encode(inputs["pictures"]).latents.repeat_interleave(REPEATS, dim=1)
    assert (made["latents"] - encoded).abs().mean() < HALF
    clamped = (inputs["latents"] / 3).tanh().unflatten(1, (-1, REPEATS)).mean(2)  # each channel by itself
    expected = autoencoder.decode(clamped.atanh() * 3).sample.clamp(-1, 1)
    assert (made["pictures"] - expected).abs().mean() < HALF


def test_a_guard_reads_the_same_in_every_family_that_reads_clip_l(mini, flow_mini, proof, pack_parent):
    results = proof(
        "guard_encoder_proof.py", mini["checkpoint"], flow_mini["checkpoint"], PROMPT, pack_parent
    )
    assert len(set(results["ids"])) == 1
    assert results["shapes"] == [[10, 768]]  # start, seven words, end, and their summary
    assert results["differences"] == [0, 0]
    assert results["change"] == 0  # what is drawn does not depend on whether a guard has read
    assert results["refused"] == ["flux1", "zimage"]
