"""SDXL: its UNet against diffusers' own conversion, its LoRAs in every dialect, what models of it predict."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors import safe_open

from builders import expert_of
from tiny_checkpoint import XL_LAYOUT
from training.experts.adapter import ATTENTION
from training.experts.expert import load_expert, save_expert
from training.experts.layer_names import module_of_kohya
from training.experts.lora_file import parse_lora
from training.experts.lora_keys import to_diffusers, to_kohya, to_peft
from training.experts.low_rank import LowRank
from training.models import FAMILIES, identify
from training.models.conditioning import Conditioning, predict
from training.models.native_unet import (
    Layout,
    check_native,
    module_names,
    native_name,
    unet_config,
    unet_from_native,
)

SDXL = FAMILIES["sdxl"]
PUBLISHED = {  # stable-diffusion-xl-base-1.0, unet/config.json
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
REAL = Layout((320, 640, 1280), (False, True, True), 2, 4, 4, depth=(0, 2, 10))


@pytest.fixture(scope="module")
def published():
    """Return the published UNet on the meta device."""
    with torch.device("meta"):
        return UNet2DConditionModel(**PUBLISHED)


def native_names(unet, layout):
    table = module_names(layout)
    return {native_name(name, table): tensor for name, tensor in unet.state_dict().items()}


def test_the_unet_is_the_one_diffusers_makes_of_the_same_file():
    torch.manual_seed(0)
    source = UNet2DConditionModel(**unet_config(XL_LAYOUT, SDXL)).eval()
    native = native_names(source, XL_LAYOUT)
    assert identify(native) is SDXL
    theirs = UNet2DConditionModel(
        **PUBLISHED
        | {
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "down_block_types": PUBLISHED["down_block_types"][:2],
            "up_block_types": PUBLISHED["up_block_types"][1:],
            "transformer_layers_per_block": [1, 2],
            "attention_head_dim": [1, 1],
        }
    ).eval()
    config = {**theirs.config, "class_embed_type": None}
    file = {f"model.diffusion_model.{name}": tensor for name, tensor in native.items()}
    theirs.load_state_dict(convert_ldm_unet_checkpoint(file, config))
    conditioning = Conditioning(torch.randn(2, 77, 2048), torch.randn(2, 1280))
    inputs = torch.randn(2, 4, 8, 8), torch.tensor([10, 900]), conditioning
    with torch.no_grad():
        assert torch.equal(predict(unet_from_native(native, SDXL), *inputs), predict(theirs, *inputs))


def test_sdxl_itself_gets_the_shapes_diffusers_publishes(published):
    native = native_names(published, REAL)
    assert len(native) == 1680  # tensors of a UNet in every SDXL checkpoint
    rebuilt = unet_from_native(native, SDXL)
    shapes = {name: tensor.shape for name, tensor in rebuilt.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in published.state_dict().items()}
    heads = {name: module.heads for name, module in published.named_modules() if hasattr(module, "heads")}
    assert heads == {
        name: module.heads for name, module in rebuilt.named_modules() if hasattr(module, "heads")
    }


def test_a_pruned_sdxl_such_as_ssd_1b_is_refused_by_its_tensor_names(published):
    native = native_names(published, REAL)
    check_native(native, SDXL)
    removed = tuple(f"output_blocks.1.1.transformer_blocks.{depth}." for depth in (8, 9))
    pruned = {name: tensor for name, tensor in native.items() if not name.startswith(removed)}  # as in SSD-1B
    assert identify(pruned) is SDXL
    with pytest.raises(
        ValueError, match=r"not a plain SDXL one: 40 tensors are missing, such as output_blocks.1"
    ):
        check_native(pruned, SDXL)


@pytest.mark.parametrize(
    ("markers", "prediction_type", "zero_snr"),
    [
        ([], "epsilon", False),
        (["v_pred"], "v_prediction", False),
        (["v_pred", "ztsnr"], "v_prediction", True),
    ],
)
def test_marker_tensors_of_a_checkpoint_give_its_prediction_type(markers, prediction_type, zero_snr):
    family = SDXL.of_checkpoint({marker: torch.zeros(0) for marker in markers})
    assert (family.prediction_type, family.zero_terminal_snr) == (prediction_type, zero_snr)
    assert (family.schedule().alphas_cumprod[-1] == 0) == zero_snr


@pytest.mark.parametrize("marker", ["edm_mean", "edm_vpred.sigma_max"])
def test_a_model_whose_noise_has_no_timesteps_is_refused_by_name(marker):
    with pytest.raises(ValueError, match=rf"SDXL model of the EDM kind \({marker}\)"):
        SDXL.of_checkpoint({marker: torch.ones(1)})


@pytest.fixture(scope="module")
def sdxl_layers(published):
    """Return a LoRA of rank 1 of all attention projections of the published UNet."""
    return {
        name: LowRank(torch.ones(module.out_features, 1), torch.ones(1, module.in_features))
        for name, module in published.named_modules()
        if name.endswith(tuple(ATTENTION))
    }


def test_a_lora_of_sdxl_is_read_in_every_dialect(sdxl_layers):
    assert len(sdxl_layers) == 560
    for write in (to_kohya, to_diffusers, to_peft):
        layers = parse_lora(write(sdxl_layers))
        assert layers.keys() == sdxl_layers.keys()
        assert all(layers[name].up.shape == layer.up.shape for name, layer in sdxl_layers.items())


def test_the_native_names_that_loras_of_sdxl_carry_lead_to_the_same_layers(sdxl_layers):
    table = module_names(REAL)
    for module in sdxl_layers:
        native = native_name(f"{module}.weight", table).removesuffix(".weight")
        assert module_of_kohya("lora_unet_" + native.replace(".", "_")) == module


def test_diffusers_reads_a_saved_expert_of_sdxl(published, sdxl_layers, tmp_path):
    from diffusers.loaders import StableDiffusionXLLoraLoaderMixin

    expert = expert_of(sdxl_layers, "violence", family="sdxl")
    file = save_expert(expert, tmp_path / "violence.safetensors")
    assert load_expert(file).family == "sdxl"
    with safe_open(file, "pt") as opened:
        assert opened.metadata()["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
        assert opened.metadata()["ss_base_model_version"] == "sdxl_base_v1-0"
    state, alphas = StableDiffusionXLLoraLoaderMixin.lora_state_dict(str(file), unet_config=published.config)
    assert parse_lora(state).keys() == sdxl_layers.keys()
    assert len(alphas) == 560


@pytest.fixture(scope="module")
def ssd_1b():
    """Return the UNet of SSD-1B on the meta device, as its published configuration describes it."""
    pruned = {
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": [1, [2, 2], [4, 4]],
        "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
    }
    with torch.device("meta"):
        return UNet2DConditionModel(**PUBLISHED | pruned)


def test_ssd_1b_is_refused_by_name_in_a_checkpoint(ssd_1b):
    with pytest.raises(ValueError, match="the model is SSD-1B; this version trains SD 1.5, SD 2.1, SDXL"):
        identify(native_names(ssd_1b, REAL))


def test_a_latent_consistency_model_is_refused_by_name(published):
    native = native_names(published, REAL) | {"time_embed.cond_proj.weight": torch.zeros(320, 256)}
    with pytest.raises(ValueError, match=r"the model is a latent consistency model \(LCM\)"):
        identify(native)
