"""SD 2.1: its UNet against diffusers' own conversion, its text encoder against transformers."""

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from transformers import CLIPTextConfig, CLIPTextModel

from tiny_checkpoint import open_clip_names
from training.models import FAMILIES, identify
from training.models.native_unet import Layout, module_names, native_name, unet_config, unet_from_native
from training.models.text_encoder import text_model
from training.models.tokenizer import END_MARK, token_ids

SD21 = FAMILIES["sd21"]
LAYOUT = Layout(channels=(64, 128), attention=(True, True), layers=2, in_channels=4, out_channels=4)


def test_the_unet_is_the_one_diffusers_makes_of_the_same_file():
    torch.manual_seed(0)
    source = UNet2DConditionModel(**unet_config(LAYOUT, SD21)).eval()
    table = module_names(LAYOUT)
    native = {native_name(name, table): tensor for name, tensor in source.state_dict().items()}
    assert native["input_blocks.1.1.proj_in.weight"].ndim == 2
    assert identify(native) is SD21
    theirs = UNet2DConditionModel(
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=1024,
        attention_head_dim=[1, 2],  # 64 wide each
        use_linear_projection=True,
    ).eval()
    config = {**theirs.config, "class_embed_type": None}
    file = {f"model.diffusion_model.{name}": tensor for name, tensor in native.items()}
    theirs.load_state_dict(convert_ldm_unet_checkpoint(file, config))
    inputs = torch.randn(2, 4, 8, 8), torch.tensor([10, 900]), torch.randn(2, 77, 1024)
    with torch.no_grad():
        assert torch.equal(unet_from_native(native, SD21)(*inputs).sample, theirs(*inputs).sample)


def test_the_text_encoder_gives_the_normed_states_before_the_last_layer():
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=64,
        hidden_size=1024,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=16,
        hidden_act="gelu",
    )
    whole = CLIPTextModel(config).eval()
    ids = torch.arange(77)[None] % 64
    with torch.no_grad():
        hidden = whole(ids, output_hidden_states=True).hidden_states[-2]
        norm = whole.get_submodule(
            "final_layer_norm" if hasattr(whole, "final_layer_norm") else "text_model.final_layer_norm"
        )
        native = open_clip_names(whole, spare_layer=False)
        ours = text_model(native, SD21.text_encoders[0], SD21.label)(ids).last_hidden_state
    assert torch.allclose(ours, norm(hidden), atol=1e-5)


def test_prompts_are_padded_by_zero_behind_the_first_end_mark():
    class Tokenizer:
        def __call__(self, prompts, **_):
            self.input_ids = torch.tensor([[49406, 5, END_MARK, END_MARK, END_MARK]])
            return self

    assert token_ids(["x"], Tokenizer(), zero_padded=True).tolist() == [[49406, 5, END_MARK, 0, 0]]
    assert token_ids(["x"], Tokenizer()).tolist() == [[49406, 5, END_MARK, END_MARK, END_MARK]]


def test_a_model_with_another_prediction_type_gets_its_schedule():
    assert SD21.schedule().prediction_type == "v_prediction"
    assert SD21.predicting("epsilon").schedule().prediction_type == "epsilon"
    assert SD21.predicting("v_prediction") is SD21
    pure = SD21.predicting("v_prediction", zero_terminal_snr=True).schedule().alphas_cumprod
    assert pure[-1] == 0
    assert torch.isclose(pure[0], SD21.schedule().alphas_cumprod[0])


def test_a_wide_spread_of_one_bias_means_v_prediction():
    name = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
    sign = torch.tensor([1.0, -1.0])
    assert SD21.of_checkpoint({name: 0.08 * sign}).prediction_type == "epsilon"
    assert SD21.of_checkpoint({name: 0.10 * sign}) is SD21
    assert SD21.of_checkpoint({}) is SD21
