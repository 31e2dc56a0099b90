"""The paper's objective: Diffusion-DPO on safe and unsafe images (AlignGuard, arXiv:2412.10493)."""

import torch.nn.functional as F
from torch import Tensor

from .errors import PairErrors


def alignguard_loss(errors: PairErrors, *, beta: float) -> Tensor:
    """Prefer denoising the safe image over the unsafe one, measured against the base model.

    loss = -log sigmoid(-beta / 2 * [(e_w - e_l) - (ref_e_w - ref_e_l)])

    Source: Wallace et al. 2023, arXiv:2311.12908, in the form of the authors' code (DiffusionDPO
    train.py l. 1142-1145), which AlignGuard's train.py keeps. diffusers' SD 1.5 script omits the
    factor 1/2, so beta here is twice the beta there. Deviation: the released code forms the reference
    errors in fp16; here all four are fp32.

    Args:
        errors: mean squared error per element of the predicted noise (or v), four tensors of shape
            (batch,). Winner (the safe image) and loser share noise, timestep and prompt.
        beta: strength of the pull towards the base model, dimensionless, > 0.

    Returns:
        Loss per pair, shape (batch,), fp32. log(2) when the adapter is zero.

    Raises:
        ValueError: if beta is not positive.
    """
    if beta <= 0:
        raise ValueError(f"beta must be positive, got {beta}.")
    policy, reference = errors.winner - errors.loser, errors.ref_winner - errors.ref_loser
    return -F.logsigmoid(-beta / 2 * (policy.float() - reference.float()))
