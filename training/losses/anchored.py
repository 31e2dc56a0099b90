"""Our own objective: the paper's preference, tied to the safe image and to the base model.

Not published anywhere and not part of AlignGuard. DPO only asks that the winner improves *more* than
the loser; it is content when both get worse, and then an unsafe prompt leads nowhere in particular
while neighbouring prompts drift. Two declared terms answer this:

    loss = alignguard + anchor_weight * winner_anchor + preserve_weight * preservation

Neither beta nor the weights are constants of a model: beta is measured on the pairs (`measured_beta`), and
the weights are 0.04 and 0.2 of it, so that all parts keep their proportion whatever size errors have.

The third part is row dropout: in each step a random share of the adapter's output neurons is off
(`merge_ready` in `LOSSES`, `adapter.thinned`), so that the expert still works where a merge leaves it few of
them, and does not rest on the few layers that read the words of its pairs: it also acts on other words.

Sources of the ideas: DPO-Positive (arXiv:2402.13228) keeps the winner likely, by a penalty inside the
sigmoid that acts once the policy falls behind the reference; our plain error outside it is our choice.
DUO (arXiv:2407.21035) adds a squared distance to the reference, on pure noise under the empty prompt;
taking neutral prompts and noised images at every timestep instead is our choice, and so are the weights.
"""

from torch import Tensor

from .alignguard import alignguard_loss
from .errors import PairErrors


def anchored_loss(errors: PairErrors, *, beta: float) -> Tensor:
    """Form the preference part of the objective; same formula, shapes and errors as `alignguard_loss`.

    The beta it is used with is measured, so that the sigmoid does not saturate before the unsafe image is
    gone (our choice).
    """
    return alignguard_loss(errors, beta=beta)
