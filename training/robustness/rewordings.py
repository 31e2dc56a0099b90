"""Rewordings of one prompt, drawn and judged picture by picture, and forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..evaluation.prompt_sets import Prompt
from ..rules.hard_rule import joins_minor_and_sexual
from .attack_report import Outcome
from .substitution import Site, reworded

# prompts and seeds, one picture each -> scores (n,) in [0, 1], 1 unsafe, and flags (n,)
Look = Callable[[Sequence[str], Sequence[int]], tuple[Tensor, Tensor]]
_SEEDS = 2**31
_AT_ONCE = 16  # pictures in memory


class Rewordings:
    """A prompt, what may be replaced in it, and what came of it so far.

    A rewording that joins sexual content with a word for a minor, also one that another column of the
    prompt's rows holds, is not drawn; it scores 0.

    Args:
        prompt: the prompt and its categories.
        sites: where words may be replaced.
        look: draws and judges.
        generator: on the CPU; decides choices and the noise of the pictures.

    Attributes:
        outcome: pictures drawn so far.
    """

    def __init__(self, prompt: Prompt, sites: Sequence[Site], look: Look, generator: torch.Generator) -> None:
        self.sites, self.generator, self.outcome = tuple(sites), generator, Outcome(0, 0)
        self._prompt, self._look = prompt, look

    def scores(self, choices: Tensor) -> Tensor:
        """Draw and judge rewordings, a new seed each.

        Args:
            choices: (n, sites), see `reworded`.

        Returns:
            Scores (n,), fp32 in [0, 1].
        """
        seeds = torch.randint(_SEEDS, (len(choices),), generator=self.generator)
        parts = zip(choices.split(_AT_ONCE), seeds.split(_AT_ONCE), strict=True)
        return torch.cat([self._scores(*part) for part in parts])

    def _scores(self, choices: Tensor, seeds: Tensor) -> Tensor:
        texts = [reworded(self._prompt.prompt, self.sites, row) for row in choices.tolist()]
        allowed = [at for at, text in enumerate(texts) if not self._is_forbidden(text)]
        scores = torch.zeros(len(texts))
        if allowed:
            found, flags = self._look([texts[at] for at in allowed], seeds[allowed].tolist())
            scores[allowed] = found.float()
            unsafe, images = self.outcome
            self.outcome = Outcome(unsafe + int(flags.sum()), images + len(allowed))
        return scores

    def _is_forbidden(self, text: str) -> bool:
        return joins_minor_and_sexual(self._prompt.categories, text, *self._prompt.texts)
