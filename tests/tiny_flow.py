"""The smallest network of a flow family, with SD 3's layer names, and data for it: not to draw."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny import tiny_data
from training.models.conditioning import Conditioning
from training.models.flow import SD3
from training.models.network import Network
from training.models.noise import NUM_TIMESTEPS, FlowSchedule
from training.pairs.training_data import TrainingData

WIDTH, TEXT, POOLED, CHANNELS = 32, 24, 12, 4
SCHEDULE = FlowSchedule.shifted(3.0)


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)


class _Stream(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp = _Attention(), nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)


class _JointBlock(nn.Module):
    """Text and picture attend to each other, each through layers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.context_block, self.x_block = _Stream(), _Stream()

    def forward(self, text: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
        streams = [(self.context_block, text), (self.x_block, picture)]
        joined = torch.cat([stream.attn.qkv(tokens) for stream, tokens in streams], dim=1)
        attended = F.scaled_dot_product_attention(*joined.chunk(3, dim=-1))
        parts = attended.split([text.shape[1], picture.shape[1]], dim=1)
        return tuple(
            tokens + stream.attn.proj(part) + stream.mlp.fc2(F.gelu(stream.mlp.fc1(tokens)))
            for (stream, tokens), part in zip(streams, parts, strict=True)
        )


class _Transformer(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.x_embedder, self.final = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, CHANNELS)
        self.context_embedder, self.y_embedder = nn.Linear(TEXT, WIDTH), nn.Linear(POOLED + 1, WIDTH)
        self.joint_blocks = nn.ModuleList([_JointBlock() for _ in range(depth)])


class TinyFlow(Network):
    """A network of `depth` joint blocks; equal seeds give equal weights."""

    def __init__(self, depth: int = 3, seed: int = 0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            super().__init__(_Transformer(depth).requires_grad_(False), SD3.targets(depth - 1))

    @property
    def input_dtype(self) -> torch.dtype:
        return torch.float32

    @property
    def block_list(self) -> list[nn.Module]:
        return list(self.joint_blocks)

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        predicted = torch.empty_like(noisy)
        for rows, prompts in conditioning.by_length():
            predicted[rows] = self._run(noisy[rows], timesteps[rows], prompts)
        return predicted

    def _run(self, noisy: Tensor, timesteps: Tensor, prompts: Conditioning) -> Tensor:
        times = timesteps[:, None].to(noisy) / NUM_TIMESTEPS
        vector = self.y_embedder(torch.cat([prompts.pooled, times], dim=1))[:, None]
        text, picture = (
            self.context_embedder(prompts.text_embeds),
            self.x_embedder(noisy.flatten(2).mT) + vector,
        )
        for block in self.joint_blocks:
            text, picture = block(text, picture)
        return self.final(picture).mT.reshape(noisy.shape)


def tiny_flow_data(num_pairs: int = 6, num_neutral: int = 3, uneven: bool = False) -> TrainingData:
    """Return `tiny_data` for the network; if uneven, every other prompt has fewer tokens than the rest."""
    data = tiny_data(num_pairs, num_neutral, width=TEXT, pooled=POOLED)
    if not uneven:
        return data
    prompts, tokens = data.prompts, data.prompts.text_embeds.shape[1]
    lengths = tuple(tokens - 3 * (row % 2) for row in range(len(prompts)))
    return replace(data, prompts=replace(prompts, lengths=lengths))
