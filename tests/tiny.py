"""The smallest UNet with the layer names of SD 1.5, and data for it: for shapes and keys, not to draw."""

import torch
from diffusers import UNet2DConditionModel

from training.experts.low_rank import LowRank
from training.models.conditioning import Conditioning
from training.pairs.training_data import Bucket, TrainingData

WIDTH = 16  # of the text embeddings
TOKENS = 7  # enough to attend to; CLIP has 77


def tiny_unet(width: int = WIDTH, seed: int = 0) -> UNet2DConditionModel:
    """Return a frozen UNet of two levels, 32 channels, for 8x8 latents; equal seeds give equal weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8,
            layers_per_block=1,
            block_out_channels=(32, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=width,
            attention_head_dim=4,
        )
    return unet.requires_grad_(False)


def tiny_data(
    num_pairs: int = 6,
    num_neutral: int = 3,
    width: int = WIDTH,
    seed: int = 0,
    pooled: int = 0,
    mirrored: bool = False,
) -> TrainingData:
    """Return random latents, and one random prompt embedding for each unsafe, safe and neutral prompt."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(2, num_pairs, 4, 8, 8, generator=generator)
    count = 2 * num_pairs + num_neutral

    def encoded(rows: int) -> Conditioning:
        text_embeds = torch.randn(rows, TOKENS, width, generator=generator)
        return Conditioning(text_embeds, torch.randn(rows, pooled, generator=generator) if pooled else None)

    prompts, empty = encoded(count), encoded(1)
    tables = (*latents, torch.randn(num_neutral, 4, 8, 8, generator=generator))
    if mirrored:  # unrelated latents, because the encoding of a mirrored image is not the mirrored encoding
        tables = (torch.cat([table, torch.randn(table.shape, generator=generator)]) for table in tables)
    return TrainingData(
        *tables,
        prompts=prompts,
        unsafe_prompt=torch.arange(num_pairs),
        safe_prompt=torch.arange(num_pairs, 2 * num_pairs),
        neutral_prompt=torch.arange(2 * num_pairs, count),
        empty=empty,
        buckets=(Bucket((4, 8, 8), torch.arange(num_pairs), torch.arange(num_neutral)),),
        pairs_hash="0" * 64,
        encoding_hash=f"{seed:064}",
    )


def random_layers(unet: UNet2DConditionModel, rank: int = 3, seed: int = 0) -> dict[str, LowRank]:
    """Return a LoRA of all attention projections of a UNet, with an update large enough to be seen."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        name: module.weight.shape
        for name, module in unet.named_modules()
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0"))
    }
    return {
        name: LowRank(
            up=0.3 * torch.randn(d_out, rank, generator=generator),
            down=0.3 * torch.randn(rank, d_in, generator=generator),
        )
        for name, (d_out, d_in) in sorted(shapes.items())
    }


def predict(unet: UNet2DConditionModel, width: int = WIDTH) -> torch.Tensor:
    """Return the prediction for two fixed inputs, (2, 4, 8, 8)."""
    generator = torch.Generator().manual_seed(1)
    noisy = torch.randn(2, 4, 8, 8, generator=generator)
    text_embeds = torch.randn(2, TOKENS, width, generator=generator)
    with torch.no_grad():
        return unet(noisy, torch.tensor([10, 700]), encoder_hidden_states=text_embeds).sample
