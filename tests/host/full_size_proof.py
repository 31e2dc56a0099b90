"""Compare a family's full-size models with the host's, using the same random weights.

    python full_size_proof.py COMFYUI_FOLDER FAMILY FOLDER

Writes FOLDER/expert.safetensors and prints one line of JSON. The host's weights are fp16 and it computes in
fp32, as it does on a CPU. Ours are a copy of them, converted to fp32 after the host's are freed, so that at
most one fp32 model is in memory at a time.
"""

import gc
import json
import logging
import resource
import sys
import zlib
from pathlib import Path

HOST, FAMILY, FOLDER = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, HOST)

import comfy.options

comfy.options.enable_args_parsing()

import comfy.lora
import comfy.model_detection
import comfy.model_patcher
import comfy.sd
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn

from tiny import tiny_data
from training.config import TrainConfig
from training.experts.expert import SafetyExpert, save_expert
from training.models import FAMILIES, Family, identify
from training.models.conditioning import Conditioning, predict
from training.models.native_unet import module_names, native_name, read_layout, unet_from_native
from training.models.text_encoder import text_encoder_from_native
from training.trainer.loop import train

CROSS = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
PUBLISHED = {  # unet/config.json of the published models, where it differs from diffusers' defaults
    "sd15": {"cross_attention_dim": 768},
    "sd21": {
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    },
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": (CROSS[0], CROSS[1], CROSS[1]),
        "up_block_types": (CROSS[2], CROSS[2], CROSS[3]),
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
PROMPTS = ["a red kite on a blue ground", "", "Rote DRACHEN, 3 of them"]
ROWS, HEIGHT, WIDTH = 2, 24, 16  # of the latents; not square, so that a swap of the sides is noticed


def main() -> None:
    """Run all comparisons for one family."""
    results: dict[str, object] = {}
    config = host_config()
    with torch.inference_mode():
        results |= compare_text(config)
        gc.collect()
        config.set_inference_dtype(torch.float16, torch.float32)
        model = config.get_model({}, "")
        fill(model.diffusion_model)
        inputs = random_inputs(config.unet_config["context_dim"], model.adm_channels)
        theirs = host_prediction(model, inputs)
        native = model.diffusion_model.state_dict()
        family = identify(native)
        unet = unet_from_native(native, family)
        table = module_names(read_layout(native))
        del native
        model.diffusion_model.to("meta")  # keeps names and shapes, frees the weights
        gc.collect()
    nn.Module.to(unet, torch.float32)
    with torch.no_grad():
        results["unet"] = difference(predict(unet, *inputs), theirs)
    results |= {
        "family": family.name,
        "host": type(config).__name__,
        "schedule": compare_schedule(model, family),
    }
    results |= compare_expert(model, unet, family, table)
    results["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sys.stdout.write(json.dumps(results) + "\n")


def host_config():
    """Return the host's settings of the published model, as it detects them from diffusers files."""
    with torch.device("meta"):
        published = UNet2DConditionModel(**PUBLISHED[FAMILY])
    return comfy.model_detection.model_config_from_diffusers_unet(published.state_dict())


def fill(module: nn.Module) -> None:
    """Fill every parameter with different random values, quickly, from one row of numbers."""
    numbers = torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    for name, parameter in module.named_parameters():
        start = zlib.crc32(name.encode()) % len(numbers)
        repeats = parameter.numel() // len(numbers) + 2
        values = numbers.repeat(repeats)[start : start + parameter.numel()].reshape(parameter.shape)
        if parameter.ndim > 1:
            values = values / parameter[0].numel() ** 0.5
        elif parameter.ndim == 1:
            values = 0.1 * values + name.endswith("weight")  # norms; biases are small
        parameter.data.copy_(values)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    if ours.shape != theirs.shape:
        raise ValueError(f"ours has shape {tuple(ours.shape)}, theirs {tuple(theirs.shape)}.")
    return float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())


def compare_text(config) -> dict[str, object]:
    """Encode prompts with the host's CLIP, and with our encoder for the checkpoint that the host saves."""
    clip = comfy.sd.CLIP(target=config.clip_target())
    fill(clip.cond_stage_model)
    theirs = [clip.encode_from_tokens(clip.tokenize(prompt), return_pooled=True) for prompt in PROMPTS]
    state = config.process_clip_state_dict_for_saving(clip.get_sd())
    family = FAMILIES[FAMILY]
    del clip
    encoder = text_encoder_from_native(state, family)
    ours = [encoder.encode(prompt) for prompt in PROMPTS]
    pairs = list(zip(ours, theirs, strict=True))
    results = {"text": max(difference(mine.text_embeds, embeds) for mine, (embeds, _) in pairs)}
    if family.pooled_width:
        results["pooled"] = max(difference(mine.pooled, pooled) for mine, (_, pooled) in pairs)
    return results


def random_inputs(text_width: int, adm_channels: int) -> tuple[Tensor, Tensor, Conditioning]:
    """Return latents, timesteps and conditioning of ROWS rows."""
    generator = torch.Generator().manual_seed(1)
    noisy = torch.randn(ROWS, 4, HEIGHT, WIDTH, generator=generator)
    text_embeds = torch.randn(ROWS, 77, text_width, generator=generator)
    pooled = torch.randn(ROWS, 1280, generator=generator) if adm_channels else None
    return noisy, torch.tensor([10, 900]), Conditioning(text_embeds, pooled)


def host_prediction(model, inputs: tuple[Tensor, Tensor, Conditioning]) -> Tensor:
    """Run the host's UNet with the host's size conditioning."""
    noisy, timesteps, conditioning = inputs
    sizes = {"height": 8 * HEIGHT, "width": 8 * WIDTH}
    y = None if conditioning.pooled is None else model.encode_adm(pooled_output=conditioning.pooled, **sizes)
    return model.diffusion_model(noisy, timesteps, context=conditioning.text_embeds, y=y)


def compare_schedule(model, family: Family) -> float:
    """Compare the noise levels sqrt((1 - a) / a), with the prediction type of the host's model."""
    kinds = {"EPS": "epsilon", "V_PREDICTION": "v_prediction"}
    schedule = family.predicting(kinds[model.model_type.name]).schedule()
    ours = ((1 - schedule.alphas_cumprod.double()) / schedule.alphas_cumprod.double()).sqrt()
    return difference(ours, model.model_sampling.sigmas)


def compare_expert(model, unet: nn.Module, family: Family, table: dict[str, str]) -> dict[str, object]:
    """Train two steps, save, and load with the stock loader; compare the update of every weight."""
    pooled = family.pooled_width
    data = tiny_data(num_pairs=1, num_neutral=1, width=family.text_width, pooled=pooled)
    config = TrainConfig(objective="alignguard", steps=2, batch_size=1, learning_rate=1e-2, rank=2)
    result = train(unet, data, family.schedule(), config)
    expert = SafetyExpert(result.layers, ("violence",), family.name, {}, "expert")
    file = save_expert(expert, Path(FOLDER) / "expert.safetensors")
    warnings = Warnings()
    logging.getLogger().addHandler(warnings)
    stock, _ = comfy.sd.load_lora_for_models(
        comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu")),
        None,
        load_file(file),
        1.0,
        0.0,
    )
    worst = 0.0
    for module, layer in expert.layers.items():
        key = f"diffusion_model.{native_name(f'{module}.weight', table)}"
        shape = model.state_dict()[key].shape
        update = comfy.lora.calculate_weight(stock.patches[key], torch.zeros(shape), key)
        worst = max(worst, difference(layer.delta().reshape(shape), update))
    return {
        "losses": result.losses,
        "layers": len(expert.layers),
        "patched": len(stock.patches),
        "update": worst,
        "warnings": warnings.texts,
    }


class Warnings(logging.Handler):
    """Collects the host's warnings, such as an unknown key."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Collect one warning."""
        self.texts.append(record.getMessage())


if __name__ == "__main__":
    main()
