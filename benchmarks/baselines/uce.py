"""UCE: edit in one linear solve what cross-attention reads of a text (Gandikota et al., arXiv:2308.14761)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

EDITED = ("attn2.to_k", "attn2.to_v")


@dataclass(frozen=True)
class UceConfig:
    """Parameters of UCE.

    Attributes:
        erase_scale: weight of the erased texts. Authors' code: 1.
        preserve_scale: weight of the kept texts. Authors' code: 0.1 (first release), 1 (rewritten).
        ridge: pull towards the old weights (`lamb`). Authors' code: 0.1 or 0.5 (first), 0.5 (rewritten).
    """

    erase_scale: float = 1.0
    preserve_scale: float = 0.1
    ridge: float = 0.1


def edit_uce(
    unet: nn.Module, erased: Tensor, safe: Tensor, kept: Tensor, config: UceConfig
) -> dict[str, Tensor]:
    """Edit every key and value projection of the cross-attention.

    Args:
        unet: UNet to edit; it is not changed.
        erased: embeddings of the texts to erase, (texts, tokens, d).
        safe: embeddings that replace them, same shape.
        kept: embeddings of texts to preserve, (any, tokens, d).
        config: weights of the objective's terms.

    Returns:
        Parameter name -> change to add to it.

    Raises:
        ValueError: if `erased` and `safe` differ in shape.
    """
    if erased.shape != safe.shape:
        raise ValueError(
            f"every erased text needs a safe one, got {tuple(erased.shape)} and {tuple(safe.shape)}."
        )
    sums = text_sums(*(texts.flatten(0, -2).double() for texts in (erased, safe, kept)), config)
    return {
        f"{name}.weight": closed_form(module.weight, *sums) - module.weight
        for name, module in unet.named_modules()
        if name.endswith(EDITED)
    }


def text_sums(erased: Tensor, safe: Tensor, kept: Tensor, config: UceConfig) -> tuple[Tensor, Tensor]:
    """Return the sums over texts for `closed_form`; they are the same for every weight.

    Args:
        erased: c_i, (n, d), fp64.
        safe: c*_i, (n, d), fp64.
        kept: c_j, (m, d), fp64.
        config: a, b and l.

    Returns:
        a sum_i c*_i c_i^T + B and a sum_i c_i c_i^T + B, with B = b sum_j c_j c_j^T + l I; (d, d), fp64.
    """
    base = config.preserve_scale * kept.T @ kept + config.ridge * torch.eye(kept.shape[1], dtype=kept.dtype)
    return config.erase_scale * safe.T @ erased + base, config.erase_scale * erased.T @ erased + base


def closed_form(weight: Tensor, targets: Tensor, gram: Tensor) -> Tensor:
    """Minimise the paper's objective by its equation 7, with the weights of the authors' code.

    min_W  a sum_i |W c_i - W_old c*_i|^2 + b sum_j |W c_j - W_old c_j|^2 + l |W - W_old|^2
    W = (a sum_i v*_i c_i^T + b sum_j W_old c_j c_j^T + l W_old)
        (a sum_i c_i c_i^T + b sum_j c_j c_j^T + l I)^-1,  v*_i = W_old c*_i

    Args:
        weight: W_old, (d_out, d).
        targets: first result of `text_sums`.
        gram: second result of `text_sums`; it is symmetric.

    Returns:
        W, with the shape and dtype of `weight`.
    """
    return torch.linalg.solve(gram, (weight.double() @ targets).T).T.to(weight.dtype)
