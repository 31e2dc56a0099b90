"""DUO's objective: unlearn the unsafe image itself, whatever prompt leads to it (arXiv:2407.21035).

    loss = preference under the empty prompt + preserve_weight * distance to the base model at pure noise

The second part (`output_preservation` in `LOSSES`) is the mean squared difference between the outputs of the
UNet with and without the adapter on pure noise, under the empty prompt, at the last timestep: it keeps what
the model draws without a prompt. For v-prediction it is the difference of v, because the difference of
epsilon vanishes where the schedule ends in pure noise. Pairs are noised at the first 750 timesteps only.

Source: naver-ai/DUO, train/unlearn-sd.py, where the weight of the second part is base_lambda * beta / 100
with base_lambda 1e6 for SD 1.4. The recipe of DUO's SD 1.4 runs (self-attention only, rank 32) is the preset
`DUO SD 1.4`. Deviations, all ours: winner and loser share one timestep as in Diffusion-DPO (in DUO they have
different ones); the pure noise is drawn by itself (in DUO it is the noise of the pair); if the prompts of the
pairs are used, both images are seen under each prompt of the pair (in DUO each image under its own prompt);
the learning rate is not divided by beta, so another beta than the preset's needs another rate.
"""

import torch.nn.functional as F
from torch import Tensor

from .errors import PairErrors


def duo_loss(errors: PairErrors, *, beta: float) -> Tensor:
    """Prefer denoising the safe image over the unsafe one, with DUO's beta.

    loss = -log sigmoid(-beta * [(e_w - e_l) - (ref_e_w - ref_e_l)])

    No factor 1/2: duo(beta) is alignguard(2 * beta).

    Args:
        errors: mean squared error per element of the predicted noise (or v), four tensors of shape (batch,).
        beta: strength of the pull towards the base model, dimensionless, > 0.

    Returns:
        Loss per pair, shape (batch,), fp32. log(2) when the adapter is zero.

    Raises:
        ValueError: if beta is not positive.
    """
    if beta <= 0:
        raise ValueError(f"beta must be positive, got {beta}.")
    policy, reference = errors.winner - errors.loser, errors.ref_winner - errors.ref_loser
    return -F.logsigmoid(-beta * (policy.float() - reference.float()))
