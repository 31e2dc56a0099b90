"""A safety expert as a value, and as a file that every LoRA loader opens."""

import dataclasses
import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from builders import expert_of, random_layer, seeded
from tiny import random_layers, tiny_unet
from training.experts.expert import SafetyExpert, check_family, check_size, load_expert, save_expert
from training.experts.lora_keys import to_diffusers, to_peft
from training.experts.low_rank import LowRank

CROSS_K = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture(scope="module")
def layers():
    return random_layers(tiny_unet(width=768), rank=2)


@pytest.fixture
def expert(layers):
    return SafetyExpert(layers, ("hate", "self-harm"), "sd15", {"alignguard.seed": "7"}, "hate.safetensors")


def same_layers(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[name].up, other[name].up) and torch.equal(one[name].down, other[name].down)
        for name in one
    )


def test_a_round_trip_keeps_everything(expert, tmp_path):
    back = load_expert(save_expert(expert, tmp_path / "hate.safetensors"))
    assert same_layers(back.layers, expert.layers)
    assert (back.categories, back.family, back.name) == (expert.categories, "sd15", "hate.safetensors")
    assert back.metadata["alignguard.seed"] == "7"
    assert back.content_hash == expert.content_hash
    assert (back.rank, back.text_width) == (2, 768)


def test_writing_what_was_read_gives_the_same_bytes(expert, tmp_path):
    one = save_expert(expert, tmp_path / "one.safetensors")
    two = save_expert(load_expert(one), tmp_path / "two.safetensors")
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_files_keep_their_alpha_in_fp32(expert, tmp_path, dtype):
    path = save_expert(expert, tmp_path / "half.safetensors", dtype=dtype)
    for key, tensor in load_file(path).items():
        assert tensor.dtype == (torch.float32 if key.endswith(".alpha") else dtype)
        assert not key.endswith(".alpha") or tensor == 2
    layer = load_expert(path).layers[CROSS_K]
    assert torch.equal(layer.up, expert.layers[CROSS_K].up.to(dtype).float())


def test_the_metadata_is_what_other_tools_read(expert, tmp_path):
    metadata = load_expert(save_expert(expert, tmp_path / "x.safetensors")).metadata
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert metadata["ss_network_module"] == "networks.lora"
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("2", "2.0")
    assert metadata["alignguard.categories"] == "hate, self-harm"
    assert metadata["alignguard.family"] == "sd15"


def test_hashes_of_the_bytes_it_was_read_from_are_not_passed_on(expert, tmp_path):
    stale = dataclasses.replace(expert, metadata={"sshs_model_hash": "1", "modelspec.hash_sha256": "2"})
    metadata = load_expert(save_expert(stale, tmp_path / "x.safetensors")).metadata
    assert not {"sshs_model_hash", "modelspec.hash_sha256"} & metadata.keys()


@pytest.mark.parametrize("dialect", [to_diffusers, to_peft])
def test_foreign_loras_of_a_known_family_are_experts_without_a_category(layers, tmp_path, dialect):
    save_file(dialect(layers), tmp_path / "foreign.safetensors")
    expert = load_expert(tmp_path / "foreign.safetensors")
    assert same_layers(expert.layers, layers)
    assert (expert.categories, expert.family) == ((), "sd15")


def test_pefts_configuration_beside_a_peft_file_is_read_for_its_scale(layers, tmp_path):
    save_file(to_peft(layers), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 4, "r": 2}))
    expert = load_expert(tmp_path / "adapter_model.safetensors")
    assert torch.equal(expert.layers[CROSS_K].up, 2 * layers[CROSS_K].up)


def pipeline_of(unet):
    """Return diffusers' pipeline for Stable Diffusion around a UNet, without text encoder and autoencoder."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    absent = ("vae", "text_encoder", "tokenizer", "safety_checker", "feature_extractor")
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", steps_offset=1, clip_sample=False)
    parts = {"unet": unet, "scheduler": scheduler, "requires_safety_checker": False}
    pipeline = StableDiffusionPipeline(**parts, **dict.fromkeys(absent))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn_by(pipeline):
    embeds = torch.randn(2, 1, 77, 768, generator=seeded(4))
    given = {"prompt_embeds": embeds[0], "negative_prompt_embeds": embeds[1]}
    start = torch.randn(1, 4, 8, 8, generator=seeded(5))
    return pipeline(**given, latents=start, num_inference_steps=3, output_type="latent").images


def test_a_pipeline_of_diffusers_loads_the_file_and_draws_as_with_dense_weights(expert, tmp_path):
    path = save_expert(expert, tmp_path / "x.safetensors")
    loaded, dense = pipeline_of(tiny_unet(width=768)), pipeline_of(tiny_unet(width=768))
    base = drawn_by(loaded)
    loaded.load_lora_weights(tmp_path, weight_name=path.name)
    for name, layer in expert.layers.items():
        dense.unet.get_submodule(name).weight += layer.delta()
    close = {"rtol": 1e-4, "atol": 1e-4}  # another order of summing in fp32, over three steps
    torch.testing.assert_close(drawn_by(loaded), drawn_by(dense), **close)
    assert (drawn_by(dense) - base).abs().max() > 0.1
    loaded.unload_lora_weights()
    torch.testing.assert_close(drawn_by(loaded), base, **close)


@pytest.mark.parametrize("keep", [0, 7, 200, -1])
def test_a_truncated_file_is_named(expert, tmp_path, keep):
    path = tmp_path / "torn.safetensors"
    path.write_bytes(save_expert(expert, tmp_path / "x.safetensors").read_bytes()[:keep])
    with pytest.raises(ValueError, match="torn.safetensors is (damaged or incomplete|empty)"):
        load_expert(path)


@pytest.mark.parametrize("name", ["expert.pt", "expert.safetensors"])
def test_a_pickle_is_refused_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps([1]))
    with pytest.raises(ValueError, match=f"{name} is a pickle, which can run code when opened"):
        load_expert(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.safetensors does not exist"):
        load_expert(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("extra", ["alphas_cumprod", "model.diffusion_model.input_blocks.0.0.weight"])
def test_a_checkpoint_is_not_mistaken_for_an_expert(tmp_path, extra):
    save_file(
        {"model.diffusion_model.out.2.bias": torch.zeros(4), extra: torch.zeros(4)},
        tmp_path / "sd.safetensors",
    )
    with pytest.raises(ValueError, match="sd.safetensors cannot be used as an expert: it holds full weights"):
        load_expert(tmp_path / "sd.safetensors")


def test_a_contradiction_between_metadata_and_weights_is_named(layers, tmp_path):
    save_file(
        to_diffusers(layers), tmp_path / "x.safetensors", metadata={"ss_base_model_version": "sdxl_base_v1-0"}
    )
    with pytest.raises(ValueError, match="its metadata says SDXL, but its text width 768 is that of SD 1.5"):
        load_expert(tmp_path / "x.safetensors")


def test_an_unknown_base_model_is_refused(tmp_path):
    save_file(to_diffusers(random_layers(tiny_unet())), tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"not say which base model .* layers fit none \(text width 16\)"):
        load_expert(tmp_path / "x.safetensors")


def test_values_that_are_not_finite_are_never_read_nor_written(expert, tmp_path):
    broken = dict(expert.layers)
    broken[CROSS_K] = broken[CROSS_K].scaled(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        save_expert(dataclasses.replace(expert, layers=broken), tmp_path / "x.safetensors")
    save_file(to_diffusers(broken), tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="x.safetensors cannot be used .* not finite"):
        load_expert(tmp_path / "x.safetensors")


def test_values_that_do_not_fit_half_precision_are_not_written(expert, tmp_path):
    large = {name: layer.scaled(1e6) for name, layer in expert.layers.items()}
    with pytest.raises(ValueError, match="does not fit torch.float16. Save the expert as fp32 or bf16"):
        save_expert(
            dataclasses.replace(expert, layers=large), tmp_path / "x.safetensors", dtype=torch.float16
        )
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_ever_overwritten(expert, tmp_path):
    path = save_expert(expert, tmp_path / "x.safetensors")
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="x.safetensors already exists"):
        save_expert(dataclasses.replace(expert, categories=()), path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["x.pt", "x", "x.safetensors.bak"])
def test_other_endings_are_refused(expert, tmp_path, name):
    with pytest.raises(ValueError, match=f"must end in .safetensors, got '{name}'"):
        save_expert(expert, tmp_path / name)


def test_an_expert_of_another_family_is_refused_with_both_names(expert):
    check_family(expert, "sd15", 768)
    xl = expert_of(random_layers(tiny_unet(width=2048)), name="hate_xl.safetensors", family="sdxl")
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        check_family(xl, "sd15", 768)
    assert str(caught.value) == (
        "expert 'hate_xl.safetensors' was trained for SDXL (text width 2048); this model is SD 1.5 (768). "
        "Load an expert of SD 1.5."
    )


def test_the_hash_follows_the_weights_and_nothing_else(expert):
    renamed = dataclasses.replace(expert, name="other", metadata={}, categories=())
    assert renamed.content_hash == expert.content_hash
    changed = dict(expert.layers)
    changed[CROSS_K] = changed[CROSS_K].scaled(1.0000001)
    assert dataclasses.replace(expert, layers=changed).content_hash != expert.content_hash


def test_the_report_states_categories_base_model_rank_and_settings(expert):
    text = expert.report()
    assert "categories: hate, self-harm" in text
    assert "base model: SD 1.5" in text
    assert f"layers: {len(expert.layers)}, rank 2" in text
    assert "seed: 7" in text
    assert "mid_block" in text


def test_the_report_lists_the_members_of_a_merge(expert):
    members = json.dumps([{"name": "a", "strength": 1.0}, {"name": "b", "strength": 0.5}])
    text = dataclasses.replace(expert, metadata={"alignguard.members": members}).report()
    assert "  1 a, strength 1" in text.splitlines()
    assert "  2 b, strength 0.5" in text.splitlines()
    assert "odd" in dataclasses.replace(expert, metadata={"alignguard.members": "odd"}).report()


@pytest.mark.parametrize("factor", [1e4, 1e20, 1e37])
@pytest.mark.parametrize("part", ["lora_up.weight", "lora_down.weight", "alpha"])
def test_finite_but_absurd_weights_are_refused_by_layer_and_size_when_the_file_is_read(
    expert, tmp_path, part, factor
):
    path = save_expert(expert, tmp_path / "whole.safetensors")
    state = load_file(path)
    key = next(key for key in sorted(state) if key.endswith(part))
    state[key] = state[key] * factor
    assert state[key].isfinite().all()
    save_file(state, tmp_path / "absurd.safetensors")
    message = (
        r"^absurd.safetensors cannot be used as an expert: it changes every weight of \S+ by .* use another"
    )
    with pytest.raises(ValueError, match=message):
        load_expert(tmp_path / "absurd.safetensors")


def test_factors_of_very_different_sizes_are_allowed_if_their_product_is_usual(expert):
    layers = {name: LowRank(layer.up * 1e6, layer.down * 1e-6) for name, layer in expert.layers.items()}
    check_size("x", layers)
    cancelling = random_layer(seeded(0), 64, 64, rank=1)
    both = LowRank(
        torch.cat([1e4 * cancelling.up, -1e4 * cancelling.up], dim=1), torch.cat([cancelling.down] * 2)
    )
    check_size("x", {"conv": both})  # the parts are absurd, their sum is zero
