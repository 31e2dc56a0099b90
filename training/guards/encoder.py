"""What a guard reads of a prompt: the rows of a text encoder, in one form for every encoder.

A prompt becomes one block of rows, or several if it is longer than the encoder reads at once. The first row
of a block stands for the whole of it; the rows of its tokens follow. For CLIP the first row is that of the
end mark after the final norm, as in Latent Guard (Liu et al. 2024, arXiv:2404.08031). It reads the rows after
the end mark too; these are left out here, our choice: nothing of the prompt is in them that is not in the end
mark's row, and short prompts are read five times as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..config.guard import CLIP, SENTENCE
from ..evaluation.measures.sentences import PACKAGE, find_sentences
from ..evaluation.optional import model_hash
from ..models.hashes import WeightsDigest
from ..models.text_encoder import TextEncoder
from ..models.tokenizer import NUM_TOKENS
from ..pairs.entry_store import EntryStore, entry_key

_UNUSED = ("text_projection", "embeddings.position_ids", "logit_scale")  # some files hold them, none is read
Rows = Mapping[str, Sequence[Tensor]]  # prompt -> its blocks


@dataclass(frozen=True, eq=False)
class GuardEncoder:
    """A text encoder that guards read.

    Args:
        kind: `clip` or `sentence`.
        id: hash of its weights, equal on every machine.
        name: for people.
        blocks: f(prompt) -> its blocks, at least one, each (1 + tokens, width) fp32 on the CPU.
    """

    kind: str
    id: str
    name: str
    blocks: Callable[[str], list[Tensor]]

    def summary(self, text: str) -> Tensor:
        """Return the row that stands for a short text, such as a concept, (width,)."""
        return self.blocks(text)[0][0]


def weights_id(state: Mapping[str, Tensor]) -> str:
    """Return the hash of a text encoder, equal however the weights are stored or prefixed.

    The values are rounded to fp16, since a host may hold a checkpoint of fp32 in half precision.
    """
    digest = WeightsDigest()
    short = {name.removeprefix("text_model."): name for name in state}
    for name in sorted(short):
        if not name.startswith(_UNUSED):
            digest.add(name, state[short[name]].detach().to("cpu").half())
    return digest.hexdigest()


def clip_encoder(text_encoder: TextEncoder) -> GuardEncoder:
    """Return the CLIP-L of a base model as guards read it.

    Raises:
        ValueError: if the base model has none.
    """
    model, kind = text_encoder.models[0], text_encoder.kinds[0]
    if kind.open_clip:
        raise ValueError(NO_CLIP_L)
    tokenizer = text_encoder.tokenizer

    @torch.no_grad()
    def blocks(prompt: str) -> list[Tensor]:
        start_mark, *ids, end_mark = tokenizer([prompt], verbose=False).input_ids[0]
        device = next(model.parameters()).device
        encoded = []
        for start in range(0, max(len(ids), 1), NUM_TOKENS - 2):
            block = [start_mark, *ids[start : start + NUM_TOKENS - 2], end_mark]
            states = model(torch.tensor([block], device=device)).last_hidden_state[0]
            encoded.append(with_summary(states.float().cpu()))
        return encoded

    return GuardEncoder(CLIP, weights_id(model.state_dict()), "CLIP-L of the base model", blocks)


NO_CLIP_L = (
    "this model does not read prompts with CLIP-L, which guards with the encoder `clip` do. Use a guard with "
    f"the encoder `{SENTENCE}`."
)


def with_summary(states: Tensor) -> Tensor:
    """Return a block of CLIP: the row of the end mark, then all rows up to it.

    Args:
        states: last hidden states after the final norm, (tokens, width); the last is that of the end mark.
    """
    return torch.cat([states[-1:], states])  # (1 + tokens, width)


def sentence_encoder(device: torch.device | str = "cpu") -> GuardEncoder:
    """Return MiniLM as guards read it: the mean of the tokens, then the tokens.

    Raises:
        ValueError: if its package is not installed, or damaged.
    """
    model = find_sentences(device)
    if model is None:
        raise ValueError(
            f"a guard with the encoder `{SENTENCE}` needs the package {PACKAGE}, which is not installed. "
            f"Install it (pip install {PACKAGE}) and start again, or use the encoder `{CLIP}`."
        )

    def blocks(prompt: str) -> list[Tensor]:
        parts = model.token_states(prompt)
        return [torch.cat([states.mean(dim=0, keepdim=True), states]) for states in parts]

    return GuardEncoder(SENTENCE, model_hash(model.folder), model.name, blocks)


def encode_rows(
    encoder: GuardEncoder,
    prompts: Sequence[str],
    cache: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Rows:
    """Encode prompts, each different one once, rounded to fp16, which halves the memory of a training.

    Args:
        encoder: the text encoder.
        prompts: any number.
        cache: folder that keeps the rows for the next run; None keeps nothing.
        on_progress: called with (done, total); whatever it raises stops the work.
    """
    store, rows, unique = EntryStore(cache), {}, dict.fromkeys(prompts)

    def encoded(prompt: str) -> dict[str, Tensor]:
        return {f"{number:04}": block.half() for number, block in enumerate(encoder.blocks(prompt))}

    for done, prompt in enumerate(unique, start=1):
        key = entry_key("guard", prompt, encoder_id=encoder.id, form=encoder.kind, dtype=torch.float16)
        entry = store.get(key, lambda prompt=prompt: encoded(prompt)).read()
        rows[prompt] = [entry[name] for name in sorted(entry)]
        if on_progress:
            on_progress(done, len(unique))
    return rows


def padded(blocks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return blocks as one tensor, (n, longest, width) fp32, and which of its rows are real, (n, longest)."""
    rows = torch.nn.utils.rnn.pad_sequence([block.float() for block in blocks], batch_first=True)
    lengths = torch.tensor([len(block) for block in blocks], device=rows.device)
    return rows, torch.arange(rows.shape[1], device=rows.device) < lengths[:, None]
