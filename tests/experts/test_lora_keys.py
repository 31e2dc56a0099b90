"""One internal form for every dialect: round trips, foreign spellings, and the libraries as oracles."""

import pytest
import torch

from tiny import predict, random_layers, tiny_unet
from training.experts.layer_names import kohya_name
from training.experts.lora_file import parse_lora
from training.experts.lora_keys import coverage, to_diffusers, to_kohya, to_peft
from training.experts.low_rank import LowRank

PATH = "down_blocks.0.attentions.0.transformer_blocks.0"
TO_Q = f"{PATH}.attn1.to_q"
KOHYA_Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
DIALECTS = {"kohya": to_kohya, "diffusers": to_diffusers, "peft": to_peft}


def factors(rank=2, d_out=4, d_in=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(d_out, rank, generator=generator), torch.randn(rank, d_in, generator=generator)


def only_layer(state, **options):
    layers = parse_lora(state, **options)
    assert list(layers) == [TO_Q]
    return layers[TO_Q]


@pytest.fixture(scope="module")
def layers():
    return random_layers(tiny_unet())


@pytest.fixture(scope="module")
def dense_prediction(layers):
    unet = tiny_unet()
    for name, layer in layers.items():
        unet.get_submodule(name).weight += layer.delta()
    return predict(unet)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_round_trip_changes_nothing(dialect, layers):
    back = parse_lora(DIALECTS[dialect](layers))
    assert list(back) == sorted(layers)
    for name, layer in layers.items():
        assert torch.equal(back[name].up, layer.up)
        assert torch.equal(back[name].down, layer.down)


def test_every_target_of_the_unet_has_a_different_kohya_name():
    names = list(random_layers(tiny_unet()))
    assert len({kohya_name(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("up_key", "down_key"),
    [
        (f"{KOHYA_Q}.lora_up.weight", f"{KOHYA_Q}.lora_down.weight"),
        (f"unet.{TO_Q}.lora.up.weight", f"unet.{TO_Q}.lora.down.weight"),
        (f"unet.{TO_Q}.lora_B.weight", f"unet.{TO_Q}.lora_A.weight"),
        (f"unet.{TO_Q}.lora_linear_layer.up.weight", f"unet.{TO_Q}.lora_linear_layer.down.weight"),
        (
            f"unet.{PATH}.attn1.processor.to_q_lora.up.weight",
            f"unet.{PATH}.attn1.processor.to_q_lora.down.weight",
        ),
        (f"{PATH}.attn1.processor.to_q_lora.up.weight", f"{PATH}.attn1.processor.to_q_lora.down.weight"),
        (f"base_model.model.{TO_Q}.lora_B.weight", f"base_model.model.{TO_Q}.lora_A.weight"),
        (f"base_model.model.{TO_Q}.lora_B.default.weight", f"base_model.model.{TO_Q}.lora_A.default.weight"),
        (f"base_model.model.unet.{TO_Q}.lora_B.weight", f"base_model.model.unet.{TO_Q}.lora_A.weight"),
        (f"{TO_Q}.lora_B", f"{TO_Q}.lora_A"),
        (
            "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_up.weight",
            "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
        ),
        (
            "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_B.weight",
            "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_A.weight",
        ),
        (
            # as the host's own saver writes it
            "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_up.weight",
            "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_down.weight",
        ),
        (
            KOHYA_Q.replace("lora_unet_", "lycoris_") + ".lora_up.weight",
            KOHYA_Q.replace("lora_unet_", "lycoris_") + ".lora_down.weight",
        ),
        (f"unet.base_model.model.{TO_Q}.lora_B.weight", f"unet.base_model.model.{TO_Q}.lora_A.weight"),
    ],
)
def test_every_spelling_means_the_same_layer(up_key, down_key):
    up, down = factors()
    layer = only_layer({up_key: up, down_key: down})
    assert torch.equal(layer.up, up)
    assert torch.equal(layer.down, down)


def test_alpha_over_rank_is_folded_once_into_up():
    up, down = factors(rank=2)
    state = {f"{KOHYA_Q}.lora_up.weight": up, f"{KOHYA_Q}.lora_down.weight": down}
    layer = only_layer(state | {f"{KOHYA_Q}.alpha": torch.tensor(1.0)})
    assert torch.equal(layer.up, up / 2)
    assert torch.equal(layer.down, down)
    assert torch.equal(parse_lora(to_kohya({TO_Q: layer}))[TO_Q].up, up / 2)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 1),
        ({"lora_alpha": 8}, 2),
        ({"lora_alpha": 8, "use_rslora": True}, 4),
        ({"lora_alpha": 8, "alpha_pattern": {"attn1.to_q": 2}}, 0.5),
        ({"lora_alpha": 8, "alpha_pattern": {"(a+)+$": 2}}, 2),
    ],
)
def test_pefts_configuration_decides_the_scale_if_the_file_holds_no_alpha(config, scale):
    up, down = factors(rank=4)
    state = {f"base_model.model.{TO_Q}.lora_B.weight": up, f"base_model.model.{TO_Q}.lora_A.weight": down}
    assert torch.equal(only_layer(state, peft_config=config).up, up * scale)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"alpha_pattern": [8]}, r"alpha_pattern must name layers and their numbers, .*, got \[8\]"),
        ({"alpha_pattern": {"to_q": "x"}}, "alpha_pattern's to_q must be a number, got 'x'"),
        ({"lora_alpha": [8]}, r"lora_alpha must be a number, got \[8\]"),
    ],
)
def test_a_peft_configuration_of_another_form_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        parse_lora(to_peft({TO_Q: LowRank(*factors())}), peft_config=config)


def test_half_factors_and_1x1_convolutions_become_fp32_matrices():
    up, down = (factor.half()[:, :, None, None] for factor in factors())
    layer = only_layer({f"{KOHYA_Q}.lora_up.weight": up, f"{KOHYA_Q}.lora_down.weight": down})
    assert layer.up.dtype == torch.float32
    assert torch.equal(layer.up, up.float()[:, :, 0, 0])


def both(name, suffix=""):
    up, down = factors()
    return {f"{name}{suffix}.lora_up.weight": up, f"{name}{suffix}.lora_down.weight": down}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "it holds no LoRA layers"),
        (
            both(KOHYA_Q) | {f"{KOHYA_Q}.alpha": torch.ones(2)},
            rf"{KOHYA_Q}.alpha must be one number, got shape",
        ),
        (
            both("lora_te_text_model_encoder_layers_0_mlp_fc1"),
            "no LoRA layers of the UNet, only 2 tensors of a text encoder",
        ),
        (
            both("lora_unet_double_blocks_0_img_norm1"),
            "it is for Flux .* 2 keys name .*double_blocks",
        ),
        (both("lora_unet_joint_blocks_0_x_block_norm1"), "it is for SD 3: 2 keys name no layer"),
        (both("transformer.blocks.0.attn.to_q"), "it is for a diffusion transformer"),
        (both("lora_unet_time_embedding_cond_proj"), "it does not fit the UNet of Stable Diffusion"),
        ({f"{KOHYA_Q}.lora_up.weight": factors()[0]}, "its up and down factors must both exist"),
        (both(KOHYA_Q) | to_peft({TO_Q: LowRank(*factors())}), "occurs twice in one file"),
        (
            {
                f"{KOHYA_Q}.lora_up.weight": torch.zeros(4, 2, 1, 1),
                f"{KOHYA_Q}.lora_down.weight": torch.zeros(2, 3, 3, 3),
            },
            r"attn1.to_q is a 1x1 layer, and its lora_down must be 1x1, got \(2, 3, 3, 3\)",
        ),
        (
            {
                f"{KOHYA_Q}.lora_up.weight": torch.zeros(4, 3),
                f"{KOHYA_Q}.lora_down.weight": torch.zeros(2, 3),
            },
            "attn1.to_q: up must be",
        ),
    ],
)
def test_a_file_that_is_not_a_plain_unet_lora_is_refused_with_the_reason(state, message):
    with pytest.raises(ValueError, match=message):
        parse_lora(state)


def test_a_refused_file_is_never_read():
    class Keys(dict):
        def __getitem__(self, key):
            pytest.fail("a tensor was read")

    with pytest.raises(ValueError, match="name no layer that is known"):
        parse_lora(Keys({**both(KOHYA_Q), "model.weight": None}))


def test_coverage_counts_and_names_what_is_missing():
    assert coverage(["a", "b"], ["b", "a", "c"]).sentence() == "All 2 layers of the expert match this model."
    partial = coverage(["a", "b", "c"], ["b"])
    assert (partial.matched, partial.missing, partial.total) == (("b",), ("a", "c"), 3)
    assert partial.sentence() == "1 of 3 layers of the expert match this model. Missing: a, c."
    assert coverage("abcdef", "").sentence().endswith("Missing: a, b, c and 3 more.")


# The prediction sums in another order than the dense weights: a few roundings of 6e-8, over some layers.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def test_diffusers_loads_our_diffusers_keys(layers, dense_prediction):
    unet = tiny_unet()
    unet.load_lora_adapter(to_diffusers(layers), prefix="unet")
    torch.testing.assert_close(predict(unet), dense_prediction, **CLOSE)


def test_diffusers_loads_our_kohya_keys_with_their_alpha(layers, dense_prediction):
    from diffusers.loaders import StableDiffusionLoraLoaderMixin

    state, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(to_kohya(layers))
    unet = tiny_unet()
    unet.load_lora_adapter(state, prefix="unet", network_alphas=alphas)
    torch.testing.assert_close(predict(unet), dense_prediction, **CLOSE)


def test_peft_loads_our_peft_keys(layers, dense_prediction):
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    from training.experts.adapter import ATTENTION

    unet = tiny_unet()
    model = get_peft_model(unet, LoraConfig(r=3, lora_alpha=3, target_modules=ATTENTION))
    outcome = set_peft_model_state_dict(model, to_peft(layers))
    assert not outcome.unexpected_keys
    assert not [key for key in outcome.missing_keys if "lora_" in key]
    torch.testing.assert_close(predict(unet), dense_prediction, **CLOSE)


def test_a_lora_saved_by_diffusers_is_read_back(layers, tmp_path):
    unet = tiny_unet()
    unet.load_lora_adapter(to_diffusers(layers), prefix="unet", adapter_name="default")
    unet.save_lora_adapter(tmp_path)
    from safetensors.torch import load_file

    back = parse_lora(load_file(tmp_path / "pytorch_lora_weights.safetensors"))
    assert back.keys() == layers.keys()
    assert all(torch.equal(back[name].up, layers[name].up) for name in layers)
