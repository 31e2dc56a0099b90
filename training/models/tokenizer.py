"""Find and load the CLIP tokenizer that every ComfyUI contains, so that nothing is downloaded."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPTokenizer

NUM_TOKENS = 77  # length of CLIP's input, with start and end mark
END_MARK = 49407  # the last token of CLIP's vocabulary

_log = logging.getLogger(__name__)
_INSIDE_COMFYUI = Path("comfy/sd1_tokenizer")
_PACK = Path(__file__).resolve().parents[2]


def tokenizer_folder() -> Path:
    """Return the folder of CLIP's vocabulary.

    COMFYUI_PATH is searched first, then the ComfyUI that the pack is installed in, then `.host`.

    Raises:
        FileNotFoundError: naming the folders that were searched, if there is no vocabulary.
    """
    comfyui_path = os.environ.get("COMFYUI_PATH")
    roots = [Path(comfyui_path)] if comfyui_path else []
    roots += [*_PACK.parents[1:2], _PACK / ".host" / "ComfyUI"]
    for root in roots:
        if (root / _INSIDE_COMFYUI / "vocab.json").is_file():
            return root / _INSIDE_COMFYUI
    searched = ", ".join(str(root) for root in roots)
    raise FileNotFoundError(
        f"no CLIP tokenizer found: {_INSIDE_COMFYUI.as_posix()} is missing in {searched}. "
        "Set COMFYUI_PATH to a ComfyUI folder."
    )


def load_tokenizer() -> CLIPTokenizer:
    """Return transformers' CLIPTokenizer, read from disk only."""
    # transformers is imported late: a broken install must not remove the nodes
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(tokenizer_folder(), local_files_only=True)


def num_too_long(prompts: Iterable[str], tokenizer: Any) -> int:
    """Return how many prompts have more tokens than CLIP reads."""
    # not verbose, because transformers would warn about every such prompt
    return sum(len(ids) > NUM_TOKENS for ids in tokenizer(list(prompts), verbose=False).input_ids)


def warn_of_cut(num_prompts: int) -> None:
    """Log a warning with the number of prompts that were cut, unless it is 0."""
    if num_prompts:
        _log.warning(
            "%d prompts are longer than %d tokens; the rest of each is ignored.", num_prompts, NUM_TOKENS
        )


def token_ids(
    prompts: Iterable[str], tokenizer: Any, length: int = NUM_TOKENS, *, zero_padded: bool = False
) -> Tensor:
    """Return token ids, (len(prompts), length), padded as the text encoder was trained.

    Args:
        prompts: texts; longer ones are cut.
        tokenizer: CLIPTokenizer of transformers, see `load_tokenizer`.
        length: tokens per prompt.
        zero_padded: pad with token 0, as OpenCLIP does, instead of the end mark, as CLIP does.
    """
    ids = tokenizer(
        list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    if not zero_padded:
        return ids
    ends = (ids == END_MARK).int()  # the first end mark belongs to the prompt
    return ids.masked_fill((ends.cumsum(1) - ends) > 0, 0)
