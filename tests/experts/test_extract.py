"""A tuned model becomes the expert that was merged into it, from every layout, or is refused by name."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny import tiny_unet
from tiny_checkpoint import tiny_models
from tiny_sd3 import transformer_shapes
from tiny_tuned import half_unet, lora_of_all_layers, tuned, write_folder, write_single
from training.config import ExtractConfig
from training.experts.expert import load_expert, save_expert
from training.experts.extract import extract_expert
from training.models.hashes import weights_hash

RANK = 3


@pytest.fixture(scope="module")
def base_state():
    return half_unet()


@pytest.fixture(scope="module")
def layers(base_state):
    return lora_of_all_layers(base_state, RANK)


@pytest.fixture(scope="module")
def tuned_state(base_state, layers):
    return tuned(base_state, layers)


@pytest.fixture(scope="module")
def files(base_state, tuned_state, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "base": write_single(root / "base.safetensors", base_state),
        "tuned": write_single(root / "tuned.safetensors", tuned_state),
        "unet alone": write_single(root / "alone.safetensors", tuned_state, prefix=""),
        "folder": write_folder(root / "folder", tuned_state),
        "shards": write_folder(root / "shards", tuned_state, num_shards=3),
        "unet folder": write_folder(root / "whole", tuned_state, num_shards=2) / "unet",
    }


@pytest.fixture(scope="module")
def expert(files):
    return extract(files["base"], files["tuned"])


def extract(base, changed, rank=RANK, **options):
    return extract_expert(base, changed, ExtractConfig(rank=rank), **options)


def predict(state):
    unet = tiny_models()["unet"]
    unet.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    generator = torch.Generator().manual_seed(2)
    noisy, embeds = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 7, 768, generator=generator)
    with torch.no_grad():
        return unet(noisy, torch.tensor([10, 700]), embeds).sample


def with_update(state, layers):
    new = {name: tensor.float() for name, tensor in state.items()}
    for module, layer in layers.items():
        new[f"{module}.weight"] += layer.delta().reshape(new[f"{module}.weight"].shape)
    return new


def test_the_lora_in_a_tuned_checkpoint_comes_back_within_the_rounding_of_fp16(
    base_state, tuned_state, layers, expert
):
    assert expert.layers.keys() == layers.keys()
    assert (expert.family, expert.rank) == ("sd15", RANK)
    for module, layer in layers.items():
        rounding = tuned_state[f"{module}.weight"].float().flatten(1) - (
            base_state[f"{module}.weight"].float().flatten(1) + layer.delta()
        )
        error = expert.layers[module].delta() - layer.delta()
        assert float(error.norm()) <= 2 * float(rounding.norm())  # both of its factors contain noise


def test_its_effect_on_the_prediction_is_that_of_the_lora(base_state, layers, expert):
    wanted, without = predict(with_update(base_state, layers)), predict(base_state)
    effect = float((wanted - without).norm())
    error = float((predict(with_update(base_state, expert.layers)) - wanted).norm())
    assert effect > 0.1 * float(without.norm())
    assert error < 2e-3 * effect  # fp16 carries 5e-4 of a weight, and the change is smaller than the weight


@pytest.mark.parametrize("layout", ["unet alone", "folder", "shards", "unet folder"])
def test_every_layout_gives_the_same_expert(files, expert, layout):
    assert extract(files["base"], files[layout]).content_hash == expert.content_hash


def test_the_saved_file_keeps_convolutions_as_other_programs_expect_them(expert, tmp_path):
    path = save_expert(expert, tmp_path / "e.safetensors")
    assert load_expert(path).content_hash == expert.content_hash
    unet = tiny_models()["unet"]
    from diffusers.loaders import StableDiffusionLoraLoaderMixin

    state, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(tmp_path, weight_name=path.name)
    unet.load_lora_adapter(state, prefix="unet", network_alphas=alphas)
    loaded = {name.rpartition(".lora_A")[0] for name, _ in unet.named_parameters() if ".lora_A." in name}
    assert loaded == expert.layers.keys()


def test_the_base_hash_is_that_of_experts_trained_on_the_same_base(base_state, expert):
    unet = tiny_models()["unet"]
    unet.load_state_dict({name: tensor.float() for name, tensor in base_state.items()})
    assert expert.metadata["alignguard.base_hash"] == weights_hash(unet)
    models = json.loads(expert.metadata["alignguard.extracted_from"])
    assert models["tuned"]["name"] == "tuned.safetensors"
    assert models["base"]["hash"] == expert.metadata["alignguard.base_hash"]


def test_norms_and_biases_that_changed_are_named_with_their_size(base_state, tuned_state, tmp_path):
    changed = dict(tuned_state)
    changed["conv_norm_out.weight"] = changed["conv_norm_out.weight"] + 0.5  # 32 elements
    changed["conv_in.bias"] = changed["conv_in.bias"] + 0.25
    expert = extract(
        write_single(tmp_path / "base.safetensors", base_state),
        write_single(tmp_path / "tuned.safetensors", changed),
    )
    named = json.loads(expert.metadata["alignguard.not_representable"])
    assert named == {
        "conv_in.bias": pytest.approx(0.25 * 32**0.5, rel=1e-3),
        "conv_norm_out.weight": pytest.approx(0.5 * 32**0.5, rel=1e-3),
    }
    shares = json.loads(expert.metadata["alignguard.change"])
    assert shares["left_out"] > 0
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
    assert "changed, but not in this expert: 1 biases, 1 norm weights" in expert.report()
    assert "conv_norm_out.weight (2.83)" in expert.report()


def test_a_rank_below_the_changes_says_what_was_cut(files):
    expert = extract(files["base"], files["tuned"], rank=1, categories="Hate, violence")
    assert expert.rank == 1
    assert expert.categories == ("hate", "violence")
    assert json.loads(expert.metadata["alignguard.change"])["cut"] > 0.1
    assert "beyond the rank and energy asked for" in expert.report()


def test_progress_counts_tensors_and_may_cancel(files, base_state):
    seen = []
    extract(files["base"], files["tuned"], on_progress=lambda *state: seen.append(state))
    assert seen[-1] == (len(base_state), len(base_state))

    def cancel(*_):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        extract(files["base"], files["tuned"], on_progress=cancel)


# what is refused


def test_equal_weights_are_refused_by_name(files, base_state, tmp_path):
    copy = write_folder(tmp_path / "copy", base_state)
    with pytest.raises(ValueError, match=r"base\.safetensors and copy hold equal weights"):
        extract(files["base"], copy)


def test_models_of_two_families_are_refused_by_name(files, tmp_path):
    xl = write_folder(tmp_path / "xl", tiny_unet(width=2048).state_dict())
    with pytest.raises(ValueError, match=r"base\.safetensors is SD 1\.5, but xl is SDXL"):
        extract(files["base"], xl)


def test_models_of_one_family_with_different_layers_are_refused(files, base_state, tmp_path):
    extra = base_state | {"conv_extra.weight": torch.zeros(2, 2)}
    with pytest.raises(
        ValueError, match=r"1 tensors are in only one of them, such as conv_extra.weight in extra"
    ):
        extract(files["base"], write_folder(tmp_path / "extra", extra))
    wide = base_state | {"conv_in.weight": torch.zeros(64, 4, 3, 3)}
    with pytest.raises(ValueError, match=r"conv_in.weight is \(32, 4, 3, 3\) in base.*\(64, 4, 3, 3\)"):
        extract(files["base"], write_folder(tmp_path / "wide", wide))


def test_an_inpainting_model_is_refused_by_name(files, base_state, tmp_path):
    wide = base_state | {"conv_in.weight": torch.zeros(32, 9, 3, 3)}
    with pytest.raises(ValueError, match="inpainted cannot be used: it is an inpainting model"):
        extract(files["base"], write_folder(tmp_path / "inpainted", wide))


def test_a_change_of_norms_only_is_refused_because_a_lora_would_hold_nothing(files, base_state, tmp_path):
    changed = base_state | {"conv_norm_out.weight": base_state["conv_norm_out.weight"] + 1}
    with pytest.raises(ValueError, match="differs from base.safetensors in 1 norms and biases"):
        extract(files["base"], write_folder(tmp_path / "norms", changed))


def test_values_that_are_not_finite_are_refused_by_name(files, base_state, tmp_path):
    broken = base_state | {"conv_in.weight": torch.full((32, 4, 3, 3), torch.nan, dtype=torch.half)}
    with pytest.raises(ValueError, match="conv_in.weight in .* has values that are not finite"):
        extract(files["base"], write_folder(tmp_path / "broken", broken))


@pytest.mark.parametrize("place", ["tuned.ckpt", "tuned.safetensors"])
def test_a_pickle_is_refused_by_name(files, tmp_path, place):
    (tmp_path / place).write_bytes(pickle.dumps([1]))
    with pytest.raises(ValueError, match=f"{place} is a pickle"):
        extract(files["base"], tmp_path / place)


def with_text_encoder(path, state, *, tuned_text):
    """Write a checkpoint of a UNet and a text encoder of two tensors."""
    write_single(path, state)
    text = {"cond_stage_model.a.weight": torch.zeros(2, 2), "cond_stage_model.b.weight": torch.ones(2)}
    if tuned_text:
        text["cond_stage_model.b.weight"][0] = 3
    save_file(load_file(path) | text, path)
    return path


def test_a_tuned_text_encoder_is_named_beside_the_expert(base_state, tuned_state, tmp_path):
    base = with_text_encoder(tmp_path / "base.safetensors", base_state, tuned_text=False)
    both = with_text_encoder(tmp_path / "both.safetensors", tuned_state, tuned_text=True)
    steps = []
    found = extract(base, both, on_progress=lambda done, total: steps.append((done, total)))
    sentence = "text encoder differs in 1 of 2 tensors (norm of the change 2)"
    assert found.metadata["alignguard.other_parts"] == sentence
    assert f"besides the UNet, which is all this expert holds: {sentence}" in found.report()
    total = len(base_state) + 2
    assert steps == [(done, total) for done in range(1, total + 1)]


def test_a_model_whose_text_encoder_alone_was_tuned_is_refused_and_says_so(base_state, tmp_path):
    base = with_text_encoder(tmp_path / "base.safetensors", base_state, tuned_text=False)
    text = with_text_encoder(tmp_path / "text.safetensors", base_state, tuned_text=True)
    message = r"hold equal weights, .* Besides the UNet: text encoder differs in 1 of 2 tensors"
    with pytest.raises(ValueError, match=message):
        extract(base, text)


def test_a_tuned_sd3_becomes_the_expert_that_was_merged_into_it(tmp_path):
    shapes, generator = transformer_shapes(depth=1), torch.Generator().manual_seed(2)
    base = {name: torch.randn(shape, generator=generator).half() for name, shape in shapes.items()}
    layers = {
        module: layer
        for module, layer in lora_of_all_layers(base, RANK).items()
        if module != "context_embedder"  # wide, and factored slowly
    }
    new = tuned(base, layers)
    files = [tmp_path / f"{name}.safetensors" for name in ("base", "tuned")]
    for path, state in zip(files, (base, new), strict=True):
        save_file({f"model.diffusion_model.{name}": tensor for name, tensor in state.items()}, path)
    expert = extract_expert(*files, ExtractConfig(rank=RANK, energy=1.0), categories="hate")
    assert (expert.family, expert.layers.keys()) == ("sd3", layers.keys())
    for module, layer in layers.items():
        difference = expert.layers[module].delta() - layer.delta()
        assert difference.norm() < 0.1 * layer.delta().norm()  # both models are rounded to fp16
    read = load_expert(save_expert(expert, tmp_path / "expert.safetensors"))
    assert (read.family, read.content_hash) == ("sd3", expert.content_hash)
