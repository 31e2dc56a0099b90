"""Find and load the CLIP tokenizer that every ComfyUI carries, so that nothing is downloaded."""

import logging
import os
from pathlib import Path

NUM_TOKENS = 77  # of CLIP, its start and end mark included
END_MARK = 49407  # the last token of CLIP's vocabulary

_log = logging.getLogger(__name__)
_INSIDE_COMFYUI = Path("comfy/sd1_tokenizer")
_PACK = Path(__file__).resolve().parents[2]


def tokenizer_folder() -> Path:
    """Return the folder of CLIP's vocabulary: from COMFYUI_PATH, the ComfyUI around the pack, or `.host`.

    Raises:
        FileNotFoundError: if there is none; it says where one is looked for.
    """
    named = os.environ.get("COMFYUI_PATH")
    roots = [Path(named)] if named else []
    roots += [*_PACK.parents[1:2], _PACK / ".host" / "ComfyUI"]
    for root in roots:
        if (root / _INSIDE_COMFYUI / "vocab.json").is_file():
            return root / _INSIDE_COMFYUI
    looked = ", ".join(str(root) for root in roots)
    raise FileNotFoundError(
        f"no CLIP tokenizer found: {_INSIDE_COMFYUI.as_posix()} is in none of {looked}. "
        "Set COMFYUI_PATH to a ComfyUI folder."
    )


def load_tokenizer():
    """Return transformers' CLIPTokenizer, read from disk only."""
    # transformers is imported late: a broken install must not remove the nodes
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(tokenizer_folder(), local_files_only=True)


def num_too_long(prompts, tokenizer) -> int:
    """Return how many prompts are longer than what CLIP reads."""
    # not verbose, for transformers would warn of each of them that it may break the model
    return sum(len(ids) > NUM_TOKENS for ids in tokenizer(list(prompts), verbose=False).input_ids)


def warn_of_cut(num_prompts: int) -> None:
    """Log a warning that counts the prompts that were cut, if there are any."""
    if num_prompts:
        _log.warning("%d prompts are longer than %d tokens; their end is not used.", num_prompts, NUM_TOKENS)


def token_ids(prompts, tokenizer, length: int = NUM_TOKENS, *, zero_padded: bool = False):
    """Return token numbers (len(prompts), length), padded as the text encoder was trained.

    Args:
        prompts: texts.
        tokenizer: see `load_tokenizer`.
        length: tokens per prompt.
        zero_padded: whether token 0 pads, as in OpenCLIP, instead of the end mark, as in CLIP.
    """
    ids = tokenizer(
        list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    if not zero_padded:
        return ids
    ends = (ids == END_MARK).int()  # the first one belongs to the prompt
    return ids.masked_fill((ends.cumsum(1) - ends) > 0, 0)
