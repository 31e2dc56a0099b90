"""Our own objective: the paper's preference, tied to the safe image and to the base model.

Not published anywhere and not part of AlignGuard. DPO only asks that the winner improves *more* than the
loser. It is satisfied when both get worse, and then an unsafe prompt leads nowhere in particular while
neighbouring prompts drift. Two declared terms prevent this:

    loss = alignguard + anchor_weight * winner_anchor + preserve_weight * preservation

Neither beta nor the weights are constants of a model. beta is measured on the pairs (`measured_beta`), and
the weights are 0.04 and 0.2 of it, so that all parts keep their proportion whatever the size of the errors.

The third part is row dropout: in each step a random share of the adapter's output neurons is off
(`merge_ready` in `LOSSES`, `adapter.thinned`). The expert then still works where a merge leaves it few
neurons. It also does not depend on the few layers that read the words of its pairs, so it acts on other
words too.

Sources of the ideas: DPO-Positive (arXiv:2402.13228) keeps the winner likely, by a penalty inside the
sigmoid that acts once the policy is worse than the reference; the plain error outside it is our choice.
DUO (arXiv:2407.21035) adds a squared distance to the reference, on pure noise under the empty prompt;
everyday prompts on pictures of the pairs, noised at every timestep, are our choice, and so are the weights.
"""

from torch import Tensor

from .alignguard import alignguard_loss
from .errors import PairErrors


def anchored_loss(errors: PairErrors, *, beta: float) -> Tensor:
    """Return the preference part of the objective: formula, shapes and errors are those of `alignguard_loss`.

    beta is measured, so that the sigmoid does not saturate before the unsafe image is gone (our choice).
    """
    return alignguard_loss(errors, beta=beta)
