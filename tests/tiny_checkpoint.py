"""The smallest checkpoint of a family, with random weights that draw nothing, and pairs for it."""

from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from builders import expert_of, pair_row, write_picture, write_rows
from tiny import random_layers
from training.experts.expert import save_expert
from training.models import FAMILIES, Family
from training.models.family import ClipKind
from training.models.native_unet import Layout, module_names, native_name, unet_config
from training.system.tensors import write_tensors

SD15 = FAMILIES["sd15"]
LAYOUT = Layout(channels=(32, 32), attention=(True, True), layers=1, in_channels=4, out_channels=4)
XL_LAYOUT = Layout((32, 64), (False, True), layers=1, in_channels=4, out_channels=4, depth=(0, 2))
VOCABULARY = 64
SIDE = 32  # pixels of the pictures


def tokens(prompts, *, truncation=False, **_):
    """Stand in for CLIP's tokenizer, whose vocabulary needs 150 MB of embeddings: one token per letter."""
    rows = [[(ord(letter) % VOCABULARY) for letter in prompt.ljust(77)] for prompt in prompts]
    return SimpleNamespace(input_ids=torch.tensor([row[:77] for row in rows]) if truncation else rows)


def tiny_models(seed: int = 0, family: Family = SD15) -> dict[str, torch.nn.Module]:
    """Return the parts of a diffusers folder with random weights; equal seeds give equal weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {
            "unet": UNet2DConditionModel(**unet_config(layout_of(family), family)).eval(),
            "vae": AutoencoderTiny(
                encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4
            ).eval(),
            **{kind.folder: _text_model(kind) for kind in family.text_encoders},
        }


def layout_of(family: Family) -> Layout:
    """Return the size of the family's tiny UNet."""
    return XL_LAYOUT if family.pooled_width else LAYOUT


def _text_model(kind: ClipKind) -> torch.nn.Module:
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=kind.width,
        intermediate_size=32,
        num_hidden_layers=2 if kind.penultimate else 1,
        num_attention_heads=kind.width // 64,
        hidden_act="gelu" if kind.open_clip else "quick_gelu",
        projection_dim=kind.width,
        bos_token_id=1,
        eos_token_id=ord("~") % VOCABULARY,  # in no prompt, so that the first token is pooled
    )
    return (CLIPTextModelWithProjection if kind.pooled else CLIPTextModel)(config).eval()


def checkpoint_state(models: dict[str, torch.nn.Module], family: Family = SD15) -> dict[str, torch.Tensor]:
    """Return the tensors of `tiny_models` under a checkpoint's names."""
    table = module_names(layout_of(family))
    state = {
        f"model.diffusion_model.{native_name(name, table)}": tensor
        for name, tensor in models["unet"].state_dict().items()
    }
    for name, tensor in models["vae"].state_dict().items():
        part, _, number, rest = name.split(".", 3)
        state[f"first_stage_model.taesd_{part}.{int(number) + (part == 'decoder')}.{rest}"] = tensor
    state["first_stage_model.vae_scale"] = torch.tensor(family.latent_scale)
    state["first_stage_model.vae_shift"] = torch.tensor(0.0)
    for kind in family.text_encoders:
        for name, tensor in _text_state(models[kind.folder], kind).items():
            state[kind.prefixes[0] + name] = tensor
    return {name: tensor.contiguous() for name, tensor in state.items()}


def _text_state(model: torch.nn.Module, kind: ClipKind) -> dict[str, torch.Tensor]:
    if kind.open_clip:
        return open_clip_names(model, spare_layer=kind.spare_layer)
    return {
        f"text_model.{name.removeprefix('text_model.')}": weight
        for name, weight in model.state_dict().items()
    }


def open_clip_names(model: torch.nn.Module, *, spare_layer: bool) -> dict[str, torch.Tensor]:
    """Return the tensors of a text encoder under OpenCLIP's names, with q, k and v in one tensor.

    Args:
        model: text encoder of transformers.
        spare_layer: whether to append a layer of zeros.
    """
    state = {name.removeprefix("text_model."): tensor for name, tensor in model.state_dict().items()}
    projection = state.get("text_projection.weight", torch.zeros(model.config.hidden_size, 2))
    native = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "text_projection": projection.T,
        "logit_scale": torch.zeros(()),
    }
    layers = model.config.num_hidden_layers
    for kind in ("weight", "bias"):
        native[f"ln_final.{kind}"] = state[f"final_layer_norm.{kind}"]
        for n in range(layers):
            ours, theirs = f"encoder.layers.{n}.", f"transformer.resblocks.{n}."
            qkv = [state[f"{ours}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            native[f"{theirs}attn.in_proj_{kind}"] = torch.cat(qkv)
            native[f"{theirs}attn.out_proj.{kind}"] = state[f"{ours}self_attn.out_proj.{kind}"]
            for old, new in (("layer_norm1", "ln_1"), ("layer_norm2", "ln_2")):
                native[f"{theirs}{new}.{kind}"] = state[f"{ours}{old}.{kind}"]
            for old, new in (("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")):
                native[f"{theirs}{new}.{kind}"] = state[f"{ours}{old}.{kind}"]
    last = f"transformer.resblocks.{layers - 1}."
    spare = {name.replace(f".{layers - 1}.", f".{layers}.", 1): name for name in native if last in name}
    return native | (
        {new: torch.zeros_like(native[old]) for new, old in spare.items()} if spare_layer else {}
    )


def write_checkpoint(path: Path, family: Family = SD15) -> Path:
    """Write the checkpoint of `tiny_models`."""
    return write_tensors(path, checkpoint_state(tiny_models(family=family), family), {})


def write_expert(path: Path, *categories: str, seed: int = 1) -> Path:
    """Write a random expert of rank 2 for the UNet of `tiny_models`."""
    return save_expert(expert_of(random_layers(tiny_models()["unet"], 2, seed), *categories), path)


def write_pairs(folder: Path, category: str, num_pairs: int = 3) -> Path:
    """Write a folder of pairs of plain coloured squares."""
    folder.mkdir(parents=True)
    rows = []
    for number in range(num_pairs):
        names = {"unsafe_image": f"u_{number}.png", "safe_image": f"s_{number}.png"}
        for shade, name in enumerate(names.values()):
            write_picture(folder / name, (40 * number, 90 * shade, 120), (SIDE, SIDE))
        prompts = {"unsafe_prompt": f"a skull, number {number}", "safe_prompt": f"a kite, number {number}"}
        rows.append(pair_row(f"{category} {number}", category=[category], **prompts, **names))
    write_rows(folder / "pairs.jsonl", rows)
    return folder
