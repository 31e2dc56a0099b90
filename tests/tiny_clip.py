"""A CLIP model of random weights on disk."""

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel

IMAGE_SIDE = 32


def write_clip(folder: Path, width: int = 8, seed: int = 0) -> None:
    """Write a CLIP model as transformers saves it; its embeddings have `width` values."""
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**tower, "eos_token_id": 49407, "bos_token_id": 49406}
    vision = {**tower, "image_size": IMAGE_SIDE, "patch_size": 8}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width)).save_pretrained(
            folder
        )
