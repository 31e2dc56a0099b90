"""The smallest checkpoint that loads as SD 1.5, of random weights, and pairs for it: not to draw."""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

from training.families import FAMILIES
from training.families.native_unet import unet_config
from training.families.unet_names import Layout, module_names, native_name
from training.tensor_file import write_tensors

LAYOUT = Layout(channels=(32, 32), attention=(True, True), layers=1, in_channels=4, out_channels=4)
VOCABULARY = 64
SIDE = 32  # pixels of the pictures


def tokens(prompts, *, truncation=False, **_):
    """Stand in for CLIP's tokenizer, whose vocabulary would need 150 MB of embeddings: a letter a token."""
    rows = [[(ord(letter) % VOCABULARY) for letter in prompt.ljust(77)] for prompt in prompts]
    return SimpleNamespace(input_ids=torch.tensor([row[:77] for row in rows]) if truncation else rows)


def tiny_models(seed: int = 0) -> dict[str, torch.nn.Module]:
    """Return `unet`, `vae` and `text_encoder` with random weights; equal seeds give equal weights."""
    text_config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=768,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=12,
        hidden_act="quick_gelu",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {
            "unet": UNet2DConditionModel(**unet_config(LAYOUT, FAMILIES["sd15"])).eval(),
            "vae": AutoencoderTiny(
                encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4
            ).eval(),
            "text_encoder": CLIPTextModel(text_config).eval(),
        }


def checkpoint_state(models: dict[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    """Return the tensors of `tiny_models` under a checkpoint's names."""
    table = module_names(LAYOUT)
    state = {
        f"model.diffusion_model.{native_name(name, table)}": tensor
        for name, tensor in models["unet"].state_dict().items()
    }
    for name, tensor in models["vae"].state_dict().items():
        part, _, number, rest = name.split(".", 3)
        state[f"first_stage_model.taesd_{part}.{int(number) + (part == 'decoder')}.{rest}"] = tensor
    state["first_stage_model.vae_scale"] = torch.tensor(0.18215)
    state["first_stage_model.vae_shift"] = torch.tensor(0.0)
    for name, tensor in models["text_encoder"].state_dict().items():
        short = name.removeprefix("text_model.")
        state[f"cond_stage_model.transformer.text_model.{short}"] = tensor
    return {name: tensor.contiguous() for name, tensor in state.items()}


def write_checkpoint(path: Path) -> Path:
    """Write the checkpoint of `tiny_models`."""
    return write_tensors(path, checkpoint_state(tiny_models()), {})


def write_pairs(folder: Path, category: str, num_pairs: int = 3) -> Path:
    """Write a folder of pairs of plain coloured squares."""
    folder.mkdir(parents=True)
    rows = []
    for number in range(num_pairs):
        names = {"unsafe_image": f"u_{number}.png", "safe_image": f"s_{number}.png"}
        for shade, name in enumerate(names.values()):
            Image.new("RGB", (SIDE, SIDE), (40 * number, 90 * shade, 120)).save(folder / name)
        prompts = {"unsafe_prompt": f"a skull, number {number}", "safe_prompt": f"a kite, number {number}"}
        rows.append({"id": f"{category} {number}", "category": [category], **prompts, **names})
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder
