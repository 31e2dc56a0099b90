"""Train GuardT2I's decoder on captions, and set the threshold on captions that it was not trained on.

Written after Yang et al. 2024, arXiv:2403.01446: teacher-forced cross-entropy of a prompt given the row that
stands for it. No prompt of an attack is trained on, and captions are not filtered for what they name, since
the decoder must know the words that it shall reveal. The rule on minors is applied all the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config.guard import BASE, CLIP, SMALL, InterpretConfig
from ..models.noise import named_generator
from ..pairs.rows import prompt_key
from ..rules.hard_rule import joins_minor_and_sexual
from .calibration import calibrate, fewest_prompts
from .decoder import FREE_TOKENS, Decoder, DecoderShape
from .encoder import GuardEncoder, encode_rows
from .interpreter import Interpreter, Language

SIZES = {SMALL: (4, 256, 4), BASE: (8, 512, 8)}  # layers, width, heads
_DECAY = 0.01
_LEFT_OUT = -100  # what the cross-entropy skips: places behind the end of a caption
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class TrainedInterpreter:
    """An interpreter and how it came about.

    Attributes:
        guard: ready to be saved.
        losses: of every step.
        exact: captions that were not trained on and came back word by word.
        num_held_out: these.
        num_captions: captions that could be used.
        dropped: captions that the rule on minors forbids.
    """

    guard: Interpreter
    losses: list[float]
    exact: int
    num_held_out: int
    num_captions: int
    dropped: int

    def report(self) -> str:
        """Return it in words."""
        loss = f"{len(self.losses)} steps, loss {self.losses[0]:.3f} -> {self.losses[-1]:.3f}"
        lines = [self.guard.describe(), f"{self.num_captions} captions; {loss}"]
        if self.dropped:
            lines.append(f"{self.dropped} captions dropped by the rule on minors, which has no switch")
        lines.append(f"of {self.num_held_out} captions not trained on, {self.exact} come back word by word")
        return "\n".join(lines)


def train_interpreter(
    captions: Sequence[str],
    encoder: GuardEncoder,
    spoken: Language,
    config: InterpretConfig,
    *,
    harmless: Sequence[str] = (),
    cache: Path | None = None,
    on_progress: Progress | None = None,
) -> TrainedInterpreter:
    """Train an interpreter.

    Args:
        captions: prompts of every kind; of a long one its first block of tokens is read.
        encoder: of the model that it will stand in front of; its kind must be `clip`.
        spoken: tokens and meanings, see `language`.
        config: options.
        harmless: prompts that must not be blocked, to set the threshold on; empty takes the captions that are
            held out. Those that are trained on, or that the rule on minors forbids, are left out.
        cache: folder that keeps encoded prompts, so that a run that was stopped encodes none again.
        on_progress: called with (stage, done, total); whatever it raises stops the training.

    Raises:
        ValueError: if the encoder is not a CLIP, or there are too few captions or harmless prompts.
        RuntimeError: if the loss is not finite.
    """
    if encoder.kind != CLIP:
        raise ValueError(f"an interpreter reads the checkpoint's CLIP, not the encoder `{encoder.kind}`.")
    progress = on_progress or (lambda stage, done, total: None)
    usable, dropped = _usable(captions)
    trained, held_out = _split(usable, config)
    known = {prompt_key(text) for text in trained}
    benign = [text for text in (_usable(harmless)[0] or held_out) if prompt_key(text) not in known]
    if not trained or len(benign) < fewest_prompts(config.target_fpr):
        raise ValueError(
            f"the threshold needs at least {fewest_prompts(config.target_fpr)} prompts that the interpreter "
            f"is not trained on, got {len(benign)} beside {len(trained)} to train on. Give more captions, or "
            "raise holdout or target_fpr."
        )
    rows = encode_rows(encoder, trained, cache, lambda done, total: progress("encode", done, total))
    texts = {text: spoken.ids(text)[:FREE_TOKENS] for text in trained}
    vocabulary = sorted({token for ids in texts.values() for token in ids})
    layers, width, heads = SIZES[config.size]
    summaries = torch.stack([rows[text][0][0].float() for text in trained])  # (captions, row width)
    shape = DecoderShape(summaries.shape[1], width, layers, heads, len(vocabulary))
    decoder = Decoder(shape, named_generator(f"interpreter/{config.seed}"))
    numbers = {token: number for number, token in enumerate(vocabulary)}
    spelled = [[numbers[token] for token in texts[text]] for text in trained]
    losses = _run(decoder, summaries, spelled, config, lambda done: progress("train", done, config.steps))
    ids = torch.tensor(vocabulary)
    guard = _calibrated(decoder, ids, encoder, spoken, benign, config, progress)
    exact = sum(_comes_back(guard, text) for text in held_out)
    guard.facts.update(_facts(usable, config, exact, len(held_out)))
    return TrainedInterpreter(guard, losses, exact, len(held_out), len(usable), dropped)


def _run(
    decoder: Decoder,
    summaries: Tensor,
    spelled: Sequence[Sequence[int]],
    config: InterpretConfig,
    on_step: Callable[[int], None],
) -> list[float]:
    """Train, freeze the decoder and return the loss of every step."""
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=config.learning_rate, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    generator, losses = named_generator(f"interpreter batches/{config.seed}"), []
    for step in range(1, config.steps + 1):
        chosen = torch.randint(len(spelled), (min(config.batch_size, len(spelled)),), generator=generator)
        before, after = _as_tensors([spelled[n] for n in chosen.tolist()], decoder.shape.vocabulary)
        logits = decoder(summaries[chosen], before)  # (n, t, vocabulary)
        loss = F.cross_entropy(logits.flatten(0, 1), after.flatten(), ignore_index=_LEFT_OUT)
        if not bool(loss.isfinite()):
            raise RuntimeError("the loss of the interpreter is not finite. Lower learning_rate.")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        on_step(step)
    decoder.requires_grad_(False).eval()
    return losses


def _as_tensors(spelled: Sequence[Sequence[int]], start: int) -> tuple[Tensor, Tensor]:
    """Return the tokens before each place and those at it, (n, longest) each."""
    longest = max(1, *map(len, spelled)) if spelled else 1
    before = torch.full((len(spelled), longest), start)
    after = torch.full((len(spelled), longest), _LEFT_OUT)
    for row, numbers in enumerate(spelled):
        after[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.long)
        before[row, 1 : len(numbers)] = torch.tensor(numbers[:-1], dtype=torch.long)
    return before, after


def _calibrated(
    decoder: Decoder,
    vocabulary: Tensor,
    encoder: GuardEncoder,
    spoken: Language,
    benign: Sequence[str],
    config: InterpretConfig,
    progress: Progress,
) -> Interpreter:
    """Return the interpreter with its threshold, set by meaning alone: blocked words come later."""
    unset = Interpreter(decoder, vocabulary, encoder, spoken, None, 0.0)
    scores = []
    for done, text in enumerate(benign, start=1):
        scores.append(unset.look(text).score)
        progress("threshold", done, len(benign))
    calibration = calibrate(torch.tensor(scores), benign, config.target_fpr)
    return Interpreter(decoder, vocabulary, encoder, spoken, calibration, calibration.threshold)


def _comes_back(guard: Interpreter, text: str) -> bool:
    """Return whether a prompt comes back word by word."""
    ids = guard.language.ids(text)[:FREE_TOKENS]
    return guard.interpret(text)[0].text == guard.language.text(ids)


def _usable(prompts: Sequence[str]) -> tuple[list[str], int]:
    """Return different prompts that are not blank, in an order of their own, and how many are forbidden."""
    by_key = {key: prompt for prompt in prompts if (key := prompt_key(prompt))}
    allowed = [prompt for prompt in by_key.values() if not joins_minor_and_sexual((), prompt)]
    ordered = sorted(allowed, key=lambda prompt: hashlib.sha256(prompt.encode()).digest())
    return ordered, len(by_key) - len(allowed)


def _split(captions: Sequence[str], config: InterpretConfig) -> tuple[list[str], list[str]]:
    """Return the captions to train on, and those that are held out, drawn by the seed."""
    generator = named_generator(f"interpreter split/{config.seed}")
    order = torch.randperm(len(captions), generator=generator).tolist()
    count = round(config.holdout * len(captions))
    return [captions[n] for n in order[count:]], [captions[n] for n in order[:count]]


def _facts(captions: Sequence[str], config: InterpretConfig, exact: int, held_out: int) -> dict[str, Any]:
    digest = hashlib.sha256(json.dumps(list(captions)).encode()).hexdigest()
    return {
        "options": asdict(config),
        "captions": len(captions),
        "data_hash": digest,
        "held_out": {"exact": exact, "n": held_out},
    }
