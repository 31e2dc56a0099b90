"""PEFT's configuration: every layer gets the scale that PEFT gives it; all but plain LoRA is refused."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

from tiny import random_layers, tiny_unet
from training.experts.expert import load_expert
from training.experts.lora_keys import to_diffusers, to_kohya, to_peft

TO_K = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
CONFIGS = {
    "plain": {"lora_alpha": 8},
    "rank-stabilised": {"lora_alpha": 8, "use_rslora": True},
    "one layer by its path": {"lora_alpha": 8, "alpha_pattern": {TO_K: 32}},
    "an expression": {"lora_alpha": 8, "alpha_pattern": {r".*attn2\.to_k": 32}},
    "an anchored expression": {"lora_alpha": 8, "alpha_pattern": {f"^{TO_K}": 32}},
    "ranks and alphas": {"rank_pattern": {r"attn2\..*": 2}, "alpha_pattern": {"attn[12].to_[kv]": 3}},
}


def saved_by_peft(folder, **options):
    """Train nothing, but save a random adapter with PEFT; return what it changes, by layer."""
    torch.manual_seed(0)
    model = get_peft_model(
        tiny_unet(width=768),
        LoraConfig(**{"r": 4, "target_modules": ["to_q", "to_k"], "init_lora_weights": False} | options),
    )
    layers = {
        name: module for name, module in model.base_model.model.named_modules() if hasattr(module, "lora_A")
    }
    deltas = {name: module.get_delta_weight("default").detach() for name, module in layers.items()}
    model.save_pretrained(folder)
    return deltas


@pytest.mark.parametrize("name", CONFIGS)
def test_every_layer_gets_the_update_that_peft_applies(name, tmp_path):
    deltas = saved_by_peft(tmp_path, **CONFIGS[name])
    layers = load_expert(tmp_path / "adapter_model.safetensors").layers
    assert layers.keys() == deltas.keys()
    for module, delta in deltas.items():
        torch.testing.assert_close(layers[module].delta(), delta)


def write(folder, config, name="adapter_model.safetensors"):
    folder.mkdir(exist_ok=True)
    layers = random_layers(tiny_unet(width=768), rank=2)
    save_file(to_peft(layers), folder / name)
    (folder / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return folder / name, layers[TO_K].up


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "eva", "orthogonal", "mica"])
def test_a_start_that_leaves_the_base_as_it_is_changes_nothing(start, tmp_path):
    path, up = write(tmp_path, {"r": 2, "lora_alpha": 2, "init_lora_weights": start})
    assert torch.equal(load_expert(path).layers[TO_K].up, up)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        *(
            ({"init_lora_weights": start}, f"init_lora_weights='{start}', which changes the base model too")
            for start in ("pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "one of tomorrow")
        ),
        *(
            ({"peft_type": kind}, f"PEFT wrote it as {kind}")
            for kind in ("LOHA", "LOKR", "ADALORA", "IA3", "OFT")
        ),
        ({"use_dora": True}, "PEFT wrote it as a DoRA"),
        ({"use_qalora": True}, "PEFT wrote it as a QALoRA"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "LoRA of a model with repeated layers"),
        ({"r": 4}, "gives down_blocks.* rank 4, but the file holds rank 2, so it belongs to another file"),
        ({"r": 2, "rank_pattern": {"attn2.to_k": 8}}, "attn2.to_k rank 8, but the file holds rank 2"),
        ({"target_modules": ["to_q", "to_k"]}, "does not name .* among its target_modules"),
        ({"lora_alpha": float("nan")}, "lora_alpha must be a number, got nan"),
        ({"lora_alpha": True}, "lora_alpha must be a number, got True"),
        ({"lora_alpha": 10**400}, "lora_alpha must be a number, got 1000"),
        ({"alpha_pattern": {"(": 2}}, r"alpha_pattern has an expression that cannot be used here: '\('"),
        ({"alpha_pattern": {f"to_{n}": 1 for n in range(6000)}}, "at most 5,000 of them, got 6000 entries"),
        ("[" * 10_000, "its PEFT configuration is not readable"),
        ("[1]", "its PEFT configuration is not readable"),
        ("\xe9", "its PEFT configuration is not readable"),
    ],
)
def test_a_configuration_that_is_not_of_this_plain_lora_is_refused(config, message, tmp_path):
    path, _ = write(tmp_path, config)
    if config == "\xe9":
        (tmp_path / "adapter_config.json").write_bytes(b"\xe9")
    with pytest.raises(ValueError, match=f"{path.name} cannot be used as an expert: .*{message}"):
        load_expert(path)


def test_the_configuration_of_another_file_in_the_folder_is_not_used(tmp_path):
    write(tmp_path, {"r": 2, "lora_alpha": 8})
    path, up = write(tmp_path, {"r": 2, "lora_alpha": 8}, "other.safetensors")
    assert torch.equal(load_expert(path).layers[TO_K].up, up)
    (tmp_path / "adapter_model.safetensors").unlink()  # now the file is the renamed one
    assert torch.equal(load_expert(path).layers[TO_K].up, 4 * up)


def test_diffusers_keeps_the_configuration_in_the_file(tmp_path):
    layers = random_layers(tiny_unet(width=768), rank=2)
    metadata = {
        "unet.r": 2,
        "unet.lora_alpha": 8,
        "unet.alpha_pattern": {".*attn2.to_k": 2},
        "text_encoder.r": 9,
    }
    path = tmp_path / "pytorch_lora_weights.safetensors"
    save_file(to_diffusers(layers), path, metadata={"lora_adapter_metadata": json.dumps(metadata)})
    read = load_expert(path).layers
    assert torch.equal(read[TO_K].up, layers[TO_K].up)
    other = TO_K.replace("to_k", "to_q")
    assert torch.equal(read[other].up, 4 * layers[other].up)


def test_a_file_of_another_dialect_ignores_a_configuration_beside_it(tmp_path):
    _, up = write(tmp_path, {"r": 9, "lora_alpha": 8})
    save_file(to_kohya(random_layers(tiny_unet(width=768), rank=2)), tmp_path / "kohya.safetensors")
    assert torch.equal(load_expert(tmp_path / "kohya.safetensors").layers[TO_K].up, up)
