"""CLIPScore: how well a picture fits its prompt, as the CLIP that the user brings sees it.

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
    """Return f(picture (1, 3, h, w) in [0, 1], its prompt) -> CLIPScore, from -100 to 100.

    Args:
        folder: of a whole CLIP, see `load_clip`.
        device: where it runs.

    Raises:
        ValueError: as `load_clip`.
    """
    model = load_clip(folder, "CLIPScore", device)
    tokenizer, side = load_tokenizer(), model.config.vision_config.image_size

    def score(picture: Tensor, prompt: str) -> float:
        with torch.no_grad():
            found = model(
                input_ids=token_ids([prompt], tokenizer).to(device),
                pixel_values=clip_pixels(picture, side).to(device),
            )
        return 100 * float(F.cosine_similarity(found.image_embeds, found.text_embeds))

    return score
