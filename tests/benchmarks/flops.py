"""Operations per pair: the library's real training step against the published trainer's, counted alike."""

import torch
from full_size import RANK, SIZES, TOKENS, Size, fake_mode, fake_run, gradients, make_unet, without_memory
from peers import PublishedStep, make_text_encoders, make_vae
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from training import adapter
from training.config import TrainConfig
from training.families import FAMILIES

aten = torch.ops.aten
CPU_ATTENTION = {  # fused attention as the CPU has it, which torch's counter does not know
    aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: (
        sdpa_backward_flop_count(grad, q, k, v)
    ),
}


def measure() -> dict:
    """Count one pair under one prompt, in TFLOP (a multiplication and an addition are two)."""
    return {name: _compare(size) for name, size in SIZES.items()}


def _compare(size: Size) -> dict[str, float]:
    published = count_published(size)
    ours = count_ours(size)
    return {"published": published, "ours": ours, "ratio": ours / published}


def count_ours(size: Size) -> float:
    config = TrainConfig(objective="alignguard", beta=5000.0, batch_size=1, safe_prompt_weight=0.0, rank=RANK)
    mode = fake_mode()
    run = fake_run(size, config, mode)
    with mode, counter() as count:
        gradients(run)
    return count.get_total_flops() / 1e12


def count_published(size: Size) -> float:
    """Count the published trainer's step; SDXL as its launcher runs it, with gradient checkpointing."""
    with torch.device("meta"):
        unet, reference = make_unet(size), make_unet(size)
        vae, text_encoders = make_vae(), make_text_encoders(size)
    adapter.attach_adapter(unet, rank=RANK, alpha=0, targets="attention", seed=0)
    schedule, mode = FAMILIES[size.family].schedule(), fake_mode()
    with mode:
        for module in (unet, reference, vae, *text_encoders):
            without_memory(module)
        step = PublishedStep(unet, reference, vae, text_encoders, schedule, size)
        pictures = torch.zeros(2, 3, size.pixels, size.pixels)
        tokens = torch.zeros(1, TOKENS, dtype=torch.int64)
        with counter() as count:
            step(pictures, tokens)
    return count.get_total_flops() / 1e12


def counter() -> FlopCounterMode:
    """Return a counter that knows the CPU's fused attention."""
    return FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)
