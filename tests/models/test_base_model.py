"""A base model is read offline from a checkpoint or a diffusers folder, or refused with a reason."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny_checkpoint import checkpoint_state as state_of
from tiny_checkpoint import tiny_models, tokens
from training.models import FAMILIES
from training.models.base_model import load_base
from training.models.conditioning import Conditioning
from training.models.conditioning import predict as predict_with
from training.models.tokenizer import token_ids
from training.system.tensors import write_tensors


@pytest.fixture(autouse=True, scope="module")
def _small_vocabulary():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("training.models.text_encoder.load_tokenizer", lambda: tokens)
        patched.setattr("training.models.diffusers_folder.load_tokenizer", lambda: tokens)
        yield


@pytest.fixture(scope="module")
def models():
    return tiny_models()


@pytest.fixture(scope="module")
def checkpoint_state(models):
    return state_of(models)


@pytest.fixture(scope="module")
def checkpoint(checkpoint_state, tmp_path_factory):
    return write_tensors(tmp_path_factory.mktemp("base") / "tiny.safetensors", checkpoint_state, {})


@pytest.fixture(scope="module")
def base(checkpoint):
    return load_base(checkpoint)


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    root = tmp_path_factory.mktemp("diffusers") / "tiny"
    for part, model in models.items():
        model.save_pretrained(root / part)
    return root


def predict(unet, embeds):
    with torch.no_grad():
        return unet(torch.ones(1, 4, 4, 4), torch.tensor([500]), embeds).sample


def test_a_checkpoint_gives_the_models_it_was_made_of(base, models):
    assert (base.name, base.family.name) == ("tiny", "sd15")
    picture = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    with torch.no_grad():
        latents = models["vae"].encode(picture).latents
        embeds = models["text_encoder"](tokens(["a red kite"], truncation=True).input_ids).last_hidden_state
    assert torch.allclose(base.encode_image(picture), latents, atol=1e-6)
    assert torch.equal(base.encode_prompt("a red kite").text_embeds, embeds)
    assert torch.equal(predict(base.unet, embeds), predict(models["unet"], embeds))


@pytest.mark.parametrize("name", ["sd21", "sdxl"])
def test_every_family_is_read_from_a_file_and_from_a_folder(name, tmp_path):
    family = FAMILIES[name]
    models = tiny_models(family=family)
    write_tensors(tmp_path / "xl.safetensors", state_of(models, family), {})
    for part, model in models.items():
        model.save_pretrained(tmp_path / "folder" / part)
    scheduler = {"prediction_type": family.prediction_type}
    (tmp_path / "folder" / "scheduler").mkdir()
    (tmp_path / "folder" / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    conditioning = Conditioning(*expected_tensors(models, family, "a red kite"))
    picture = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    with torch.no_grad():
        latents = models["vae"].encode(picture).latents
    for base in (load_base(tmp_path / "xl.safetensors"), load_base(tmp_path / "folder")):
        assert base.family is family
        for ours, theirs in zip(base.encode_prompt("a red kite").tensors, conditioning.tensors, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)
        assert torch.allclose(base.encode_image(picture), latents, atol=1e-5)
        noisy, timesteps = torch.ones(1, 4, 8, 8), torch.tensor([500])
        with torch.no_grad():
            ours, theirs = (
                predict_with(unet, noisy, timesteps, conditioning) for unet in (base.unet, models["unet"])
            )
        assert torch.allclose(ours, theirs, atol=1e-5)  # sums in another order


def expected_tensors(models, family, prompt):
    """Encode with transformers' models: the last states, or those before the last layer, concatenated."""
    states, pooled = [], []
    for kind in family.text_encoders:
        ids = token_ids([prompt], tokens_of_batch, zero_padded=kind.open_clip)
        with torch.no_grad():
            encoded = models[kind.folder](ids, output_hidden_states=True)
        states.append(encoded.hidden_states[1] if kind.penultimate else encoded.last_hidden_state)
        pooled += [encoded.text_embeds] if kind.pooled else []
    return torch.cat(states, dim=-1), *pooled


def tokens_of_batch(prompts, **_):
    return tokens(prompts, truncation=True)


def test_a_diffusers_folder_gives_the_same_model_with_the_same_hash(folder, base):
    of_folder = load_base(folder)
    assert of_folder.content_hash == base.content_hash
    picture = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    assert torch.allclose(of_folder.encode_image(picture), base.encode_image(picture), atol=1e-6)
    assert torch.equal(
        of_folder.encode_prompt("a kite").text_embeds, base.encode_prompt("a kite").text_embeds
    )


def test_the_base_hash_does_not_depend_on_the_type_of_the_weights_in_file_or_memory(
    base, checkpoint_state, tmp_path
):
    half = {name: tensor.half() for name, tensor in checkpoint_state.items()}
    path = write_tensors(tmp_path / "half.safetensors", half, {})
    as_stored, as_fp32 = load_base(path, dtype=None), load_base(path)
    assert as_stored.unet.dtype == torch.float16
    assert as_stored.content_hash == as_fp32.content_hash == base.content_hash  # whose file is in fp32


def test_other_encoder_weights_give_another_encoder_id_but_the_same_base_hash(
    base, checkpoint, checkpoint_state, tmp_path
):
    other = dict(checkpoint_state)
    other["first_stage_model.vae_scale"] = torch.tensor(0.2)
    changed = load_base(write_tensors(tmp_path / "other.safetensors", other, {}))
    assert changed.content_hash == base.content_hash
    assert changed.encoder_id != base.encoder_id == load_base(checkpoint).encoder_id


def test_the_schedule_is_the_familys(base):
    assert base.schedule.prediction_type == "epsilon"


def without(state, prefix):
    return {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("model.diffusion_model.", "is not a checkpoint.*not a LoRA, VAE or text encoder"),
        ("first_stage_model.", "cannot be the base model.*with its VAE inside"),
        ("cond_stage_model.", "cannot be the base model.*with its text encoder inside"),
        (
            "cond_stage_model.transformer.text_model.final_layer_norm.",
            "cannot be the base model.*text encoder does not fit.*final_layer_norm",
        ),
    ],
)
def test_an_incomplete_checkpoint_says_what_is_missing(checkpoint_state, tmp_path, prefix, message):
    path = write_tensors(tmp_path / "part.safetensors", without(checkpoint_state, prefix), {})
    with pytest.raises(ValueError, match=rf"part\.safetensors {message}"):
        load_base(path)


def test_a_checkpoint_of_another_family_is_refused_by_name(checkpoint_state, tmp_path):
    wide = dict(checkpoint_state)
    for name in wide:
        if ".attn2.to_k." in name and name.startswith("model."):
            wide[name] = torch.zeros(wide[name].shape[0], 1280)
    path = write_tensors(tmp_path / "refiner.safetensors", wide, {})
    with pytest.raises(ValueError, match=r"refiner\.safetensors cannot be the base model.*SDXL Refiner"):
        load_base(path)


def test_pickles_are_refused_by_name_in_files_and_folders(tmp_path, folder):
    pickle = tmp_path / "model.ckpt"
    pickle.write_bytes(b"PK\x03\x04 not opened")
    with pytest.raises(ValueError, match=r"model\.ckpt is a pickle"):
        load_base(pickle)
    copy = tmp_path / "copy"
    (copy / "unet").mkdir(parents=True)
    (copy / "unet" / "config.json").write_bytes((folder / "unet" / "config.json").read_bytes())
    (copy / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"copy/unet holds only diffusion_pytorch_model\.bin, a pickle"):
        load_base(copy)


def test_a_folder_without_a_model_is_refused_with_what_it_must_hold(tmp_path):
    with pytest.raises(ValueError, match=r"unet/config\.json is missing.*unet, vae, text_encoder"):
        load_base(tmp_path)


def with_scheduler(folder, copy, config):
    """Link a folder's models into a copy that has a scheduler configuration, and return the copy."""
    for part in ("unet", "vae", "text_encoder"):
        (copy / part).mkdir(parents=True)
        for file in (folder / part).iterdir():
            (copy / part / file.name).symlink_to(file)
    (copy / "scheduler").mkdir()
    (copy / "scheduler" / "scheduler_config.json").write_text(config)
    return copy


def test_the_scheduler_configuration_of_a_folder_gives_the_prediction_type(tmp_path, folder):
    copy = with_scheduler(folder, tmp_path / "copy", json.dumps({"prediction_type": "v_prediction"}))
    assert load_base(copy).schedule.prediction_type == "v_prediction"
    (copy / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": "sample"}))
    with pytest.raises(ValueError, match=r"prediction type sample.*this version trains SD 1\.5"):
        load_base(copy)


@pytest.mark.parametrize("config", [{"_class_name": "EDMDPMSolverMultistepScheduler"}, {"sigma_data": 0.5}])
def test_a_folder_whose_noise_has_no_timesteps_is_refused_by_name(tmp_path, folder, config):
    copy = with_scheduler(folder, tmp_path / "copy", json.dumps({"prediction_type": "epsilon"} | config))
    with pytest.raises(ValueError, match="copy cannot be the base model: .* EDM kind .* Playground 2.5"):
        load_base(copy)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"cross_attention_dim": 1280}, "SDXL Refiner"),
        ({"cross_attention_dim": 555}, "of an unknown family"),
        ({"in_channels": 9}, "an inpainting model"),
        ({"in_channels": 8}, "an InstructPix2Pix model"),
        ({"time_cond_proj_dim": 256}, r"a latent consistency model \(LCM\)"),
        (
            {
                "cross_attention_dim": 2048,
                "mid_block_type": "UNetMidBlock2D",
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                "block_out_channels": [32, 64, 64],
                "layers_per_block": 2,
                "transformer_layers_per_block": [1, [1, 1], [2, 2]],
                "reverse_transformer_layers_per_block": [[2, 2, 2], [1, 1, 1], 1],
            },
            "Segmind Vega",
        ),
    ],
)
def test_a_folder_of_another_model_is_refused_by_that_models_name(tmp_path, folder, changes, kind):
    copy = with_scheduler(folder, tmp_path / "copy", "{}")
    config = json.loads((folder / "unet" / "config.json").read_text()) | changes
    (copy / "unet" / "config.json").unlink()
    (copy / "unet" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"copy is {kind}"):
        load_base(copy)


@pytest.mark.parametrize("content", ["{broken", "[1]"])
def test_a_damaged_configuration_is_named(tmp_path, folder, content):
    copy = with_scheduler(folder, tmp_path / "copy", content)
    with pytest.raises(ValueError, match=r"copy/scheduler/scheduler_config\.json (is damaged|does not hold)"):
        load_base(copy)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("model.diffusion_model.out.2.weight", "out.2.weight"),
        ("first_stage_model.taesd_encoder.0.weight", "encoder.layers.0.weight of the tiny autoencoder"),
        (
            "cond_stage_model.transformer.text_model.final_layer_norm.bias",
            "final_layer_norm.bias of the text encoder",
        ),
    ],
)
def test_one_value_that_is_not_finite_is_named_when_the_file_is_read(
    checkpoint_state, tmp_path, key, name, value
):
    state = {name: tensor.clone() for name, tensor in checkpoint_state.items()}
    state[key].view(-1)[0] = value
    path = write_tensors(tmp_path / "bad.safetensors", state, {})
    message = rf"bad.safetensors cannot be the base model: .*{name}: 1 of .* values are not finite"
    with pytest.raises(ValueError, match=message):
        load_base(path)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_value_that_is_not_finite_in_a_folder_is_named(tmp_path, folder, part):
    copy = with_scheduler(folder, tmp_path / "copy", "{}")
    (file,) = (copy / part).glob("*.safetensors")
    state = load_file(file)
    name = next(name for name in sorted(state) if state[name].is_floating_point())
    state[name].view(-1)[0] = float("nan")
    file.unlink()  # a link to the whole one
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"in copy/{part}: 1 of .* values are not finite"):
        load_base(copy)


def test_prompts_longer_than_clip_reads_are_counted_in_one_warning(base, caplog):
    base.warn_of_long(["a kite", "x" * 77])
    assert not caplog.text
    base.warn_of_long(["x" * 78, "a kite", "x" * 99])
    assert [record.message for record in caplog.records] == [
        "2 prompts are longer than 77 tokens; the rest of each is ignored."
    ]


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors does not exist"):
        load_base(tmp_path / "gone.safetensors")
