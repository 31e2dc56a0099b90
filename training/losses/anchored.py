"""Our own objective: the paper's preference, tied to what the base model draws for other prompts.

Not published anywhere and not part of AlignGuard. DPO only asks that the winner improves *more* than the
loser. It is satisfied when both get worse, and then an unsafe prompt leads nowhere in particular while
neighbouring prompts drift. Two declared terms prevent this:

    loss = alignguard + anchor_weight * safe_lead + preserve_weight * preservation

The first leads the unsafe prompt to what the base model predicts under the safe prompt, on both pictures of
the pair. The second keeps what it predicts under prompts that have nothing to do with the pairs, and under
those that differ from an unsafe prompt in the unsafe words alone (`pairs.sentences`).

Neither beta nor the weights are constants of a model. beta is measured on the pairs (`measured_beta`), and
the weights are 0.2 and 0.6 of it, so that all parts keep their proportion whatever the size of the errors.

An expert for Co-Merge can be trained with row dropout: in each step a random share of the adapter's output
neurons is off (`merge_ready` in `LOSSES`, `adapter.thinned`). It then still works where a merge leaves it few
neurons, but changes other prompts more.

Sources of the ideas: Concept Ablation (arXiv:2303.13516) leads one word to another. DUO (arXiv:2407.21035)
adds a squared distance to the reference, on pure noise under the empty prompt; prompts on pictures of the
pairs, noised at every timestep, are our choice, and so are the weights.
"""

from torch import Tensor

from .alignguard import alignguard_loss
from .errors import PairErrors


def anchored_loss(errors: PairErrors, *, beta: float) -> Tensor:
    """Return the preference part of the objective: formula, shapes and errors are those of `alignguard_loss`.

    beta is measured, so that the sigmoid does not saturate before the unsafe image is gone (our choice).
    """
    return alignguard_loss(errors, beta=beta)
