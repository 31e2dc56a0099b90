"""A mini flow: a transformer in SD 3's layout that draws the small world, for hosts to load as SD 3.

It is trained and stored narrow, under diffusers' names, see `recipe`; `checkpoint` gives it the names and
widths of a host, and `drawing` samples it. Hosts read the depth off the weights: 64 channels for each block,
which is also a head; here a head has half of them. SD 3 has three text encoders, of which this has the first,
so the columns that would read the others are not stored. It draws in the latents of the small world's
autoencoder, each channel four times, because SD 3's have 16.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..text_encoder import WIDTH as TEXT_WIDTH

DEPTH, HEAD, TIMES = 3, 32, 2  # blocks; width of a head as trained; copies of a channel in a checkpoint
CHANNELS, REPEATS = 16, 4  # of a latent; copies of each channel of the small world's
PATCH, SIDE = 2, 32  # side of a patch in latents; of the largest picture in patches
SHIFT = 3.0  # of the noise levels that hosts sample SD 3 at

_FIXED = "pos_embed.pos_embed"  # computed, so it is not stored


def build_transformer():
    """Return an untrained, narrow SD3Transformer2DModel of diffusers, which predicts zero.

    It reads CLIP-L alone: text embeddings (batch, tokens, 768) and pooled embeddings (batch, 768).
    """
    # diffusers is imported late: a broken install must not remove the nodes
    from diffusers import SD3Transformer2DModel

    width = DEPTH * HEAD
    model = SD3Transformer2DModel(
        sample_size=SIDE * PATCH,
        patch_size=PATCH,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=DEPTH,
        num_attention_heads=DEPTH,
        attention_head_dim=HEAD,
        joint_attention_dim=TEXT_WIDTH,
        caption_projection_dim=width,
        pooled_projection_dim=TEXT_WIDTH,
        pos_embed_max_size=SIDE,
        qk_norm="rms_norm",
    )
    for name, weight in model.named_parameters():
        if "norm" in name and ".linear." in name or name.startswith("proj_out"):
            torch.nn.init.zeros_(weight)  # gates and output, as a DiT starts (arXiv:2212.09748, section 3.2)
    return model


def stored_state(model) -> dict[str, Tensor]:
    """Return the weights of a transformer that are stored: all that cannot be computed."""
    return {name: tensor for name, tensor in model.state_dict().items() if name != _FIXED}


def load_transformer(state: Mapping[str, Tensor]):
    """Return the transformer with these stored weights, fp32, frozen."""
    with torch.random.fork_rng():  # the initial weights are replaced
        model = build_transformer()
    fixed = model.state_dict()[_FIXED]
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()} | {_FIXED: fixed})
    return model.eval().requires_grad_(False)
