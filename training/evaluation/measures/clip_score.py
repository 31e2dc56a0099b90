"""CLIPScore: how well an image fits its prompt, by a CLIP that the user brings.

    score = 100 * cos(image, text)

Source: Hessel et al. 2021, arXiv:2104.08718, without its factor and floor, as AlignGuard reports it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.tokenizer import load_tokenizer, token_ids
from ..judges.clip_vision import clip_pixels, load_clip


def load_clip_score(folder: Path, device: torch.device | str = "cpu") -> Callable[[Tensor, str], float]:
    """Return f(image (1, 3, h, w) in [0, 1], its prompt) -> CLIPScore in [-100, 100].

    Args:
        folder: as transformers saves a CLIP: config.json and model.safetensors.
        device: to run on.

    Raises:
        ValueError: if there is no such model, or if it lacks weights.
    """
    model = load_clip(folder, "CLIPScore", device)
    tokenizer, side = load_tokenizer(), model.config.vision_config.image_size

    def score(image: Tensor, prompt: str) -> float:
        with torch.no_grad():
            output = model(
                input_ids=token_ids([prompt], tokenizer).to(device),
                pixel_values=clip_pixels(image, side).to(device),
            )
        return 100 * float(F.cosine_similarity(output.image_embeds, output.text_embeds))

    return score
