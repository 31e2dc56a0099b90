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

from ..families.tokenizer import load_tokenizer, token_ids

_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's training pictures, per channel
_SPREAD = (0.26862954, 0.26130258, 0.27577711)


def load_clip_score(folder: Path, device: torch.device | str = "cpu") -> Callable[[Tensor, str], float]:
    """Return f(picture (1, 3, h, w) in [0, 1], its prompt) -> CLIPScore, from -100 to 100.

    Args:
        folder: a CLIP model as transformers saves it: config.json and model.safetensors.
        device: where it runs.

    Raises:
        ValueError: if there is no such model.
    """
    from transformers import CLIPModel  # late: a broken install must not remove the nodes

    try:
        model = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} cannot be used for CLIPScore. It must hold config.json and model.safetensors of a "
            f"whole CLIP, as transformers saves it ({type(error).__name__})."
        ) from error
    model.requires_grad_(False).eval().to(device)
    tokenizer, side = load_tokenizer(), model.config.vision_config.image_size

    def score(picture: Tensor, prompt: str) -> float:
        pixels = F.interpolate(picture, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        mean, spread = (torch.tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _SPREAD))
        with torch.no_grad():
            found = model(
                input_ids=token_ids([prompt], tokenizer).to(device),
                pixel_values=((pixels - mean) / spread).to(device),
            )
        return 100 * float(F.cosine_similarity(found.image_embeds, found.text_embeds))

    return score
