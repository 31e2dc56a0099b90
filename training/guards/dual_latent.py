"""Guidance towards a safe context while a picture is drawn: the arithmetic of the node and the benchmark.

After the idea of "Safety Without Semantic Disruptions" (arXiv:2411.13982): no weight changes, and two
streams, of the prompt and of a safe context, are summed in latent space with a weight. Only its abstracts
were reachable, so what is computed here is our reading. The published rule, its weights and its threshold
are unknown to us.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..evaluation.attacks.concept import ConceptDirection, check_shape
from ..models.conditioning import Conditioning


def blended(prompt: Tensor, safe: Tensor, weight: float) -> Tensor:
    """Return (1 - weight) * prompt + weight * safe.

    Applied to conditional predictions before classifier-free guidance, which is linear in them. A step that
    is affine in the prediction (Euler, DDIM) then leads to the same weighted sum of the two latents to which
    the prompt's and the safe prediction alone would lead. Other samplers remember earlier steps or predict
    several times in one, so for them this sum is an approximation.

    Args:
        prompt: prediction under the prompt, any shape.
        safe: prediction under the safe context, the same shape.
        weight: share of the safe prediction, in [0, 1].

    Returns:
        The shape and dtype of `prompt`; exactly `prompt` at weight 0 and exactly `safe` at weight 1.
    """
    if weight in (0, 1):  # a sum with 0 * x differs by the sign of zeros
        return safe if weight else prompt
    return torch.lerp(prompt, safe, weight)


def relieved(conditioning: Conditioning, direction: ConceptDirection) -> Conditioning:
    """Return an encoded prompt that lies along a concept where prompts without it lie: a safe context.

    c - max(0, <c - n, v> / <v, v>) * v in every token's row, with v the direction of the concept and n the
    mean encoding of the pairs' prompts without it. A row that lies no further along the concept stays as it
    is. Each row has a projection of its own, because the concept stands at another place in another wording:
    along the direction as a whole, half of it would be left at each of two places. The pooled vector is
    treated likewise. Our choice, in the place of the paper's safety-context embeddings, whose making is
    unknown to us.

    Args:
        conditioning: encoded prompts, any number of rows.
        direction: from the same encoder.

    Returns:
        Rows with the dtype and device of `conditioning`.

    Raises:
        ValueError: if the direction comes from another encoder or another number of tokens.
    """
    check_shape(conditioning.text_embeds, direction.conditioning.text_embeds)
    parts = zip(conditioning.tensors, direction.conditioning.tensors, direction.lacking.tensors, strict=False)
    return Conditioning(*(_lowered(*part) for part in parts))


def _lowered(encoded: Tensor, direction: Tensor, lacking: Tensor) -> Tensor:
    direction, lacking = direction.to(encoded.device), lacking.to(encoded.device)
    length = direction.square().sum(dim=-1, keepdim=True)  # (1, tokens, 1); 0 before the first difference
    above = ((encoded.float() - lacking) * direction).sum(dim=-1, keepdim=True).clamp(min=0)
    share = above / length.clamp(min=torch.finfo(torch.float32).tiny)
    return (encoded.float() - share * direction).to(encoded.dtype)
