"""The command line's base model and ComfyUI's reading of the same file give the same numbers."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from training.models.base_model import load_base
from training.system.tensors import open_tensors

PROMPTS = ["a red kite on a blue ground", "", "Rote DRACHEN, 3 of them"]
TIMESTEP = 500
IN_HOST = """
import sys
host, checkpoint, answer, *prompts = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, host)
import torch
import comfy.options
comfy.options.enable_args_parsing()
import comfy.sd
from safetensors.torch import save_file

model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(checkpoint)
generator = torch.Generator().manual_seed(0)
picture = torch.rand((1, 64, 64, 3), generator=generator)
with torch.inference_mode():
    texts = [clip.encode_from_tokens_scheduled(clip.tokenize(prompt))[0][0] for prompt in prompts]
    latents = model.model.process_latent_in(vae.encode(picture))
    unet = model.model.diffusion_model.float()
    predicted = unet(latents.float(), torch.tensor([TIMESTEP]), context=texts[0].float())
tensors = {"picture": picture, "latents": latents.float(), "predicted": predicted.float()}
tensors |= {f"text {number}": text.float() for number, text in enumerate(texts)}
save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, answer)
""".replace("TIMESTEP", str(TIMESTEP))

# Both compute in fp32, but order their sums differently; a wrong name or scale is off by far more.
TOLERANCE = 2e-4


@pytest.mark.host
@pytest.mark.skipif(find_spec("einops") is None, reason="the packages ComfyUI needs are not installed here")
def test_text_latents_and_prediction_equal_the_hosts(mini, tmp_path):
    host = os.environ.get("COMFYUI_PATH", str(Path(__file__).parents[2] / ".host" / "ComfyUI"))
    answer = tmp_path / "host.safetensors"
    command = [sys.executable, "-c", IN_HOST, host, mini["checkpoint"], answer, *PROMPTS]
    process = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    base = load_base(mini["checkpoint"])
    with open_tensors(answer) as theirs:
        for number, prompt in enumerate(PROMPTS):
            assert_close(base.encode_prompt(prompt).text_embeds, theirs[f"text {number}"])
        picture = theirs["picture"].permute(0, 3, 1, 2) * 2 - 1  # (1, 3, 64, 64)
        assert_close(base.encode_image(picture), theirs["latents"])
        with torch.no_grad():
            ours = base.unet(theirs["latents"], torch.tensor([TIMESTEP]), theirs["text 0"]).sample
        assert_close(ours, theirs["predicted"])


def assert_close(ours, theirs):
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < TOLERANCE
