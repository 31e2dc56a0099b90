"""A trainable LoRA on a UNet or network: attach it, switch it off for the reference, read it, detach it.

peft is imported inside the functions: a broken or missing install must not remove the nodes that do not
train.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..models.network import Network
from .low_rank import LowRank

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

NAME = "default"  # one adapter per UNet, because experts are trained one after the other

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]  # AlignGuard: all self- and cross-attention of the UNet
FEED_FORWARD = ["ff.net.0.proj", "ff.net.2"]
TARGETS = {
    "attention": ATTENTION,
    "attention+ff": [*ATTENTION, *FEED_FORWARD],
    "self-attention": [f"attn1.{name}" for name in ATTENTION],  # DUO on SD 1.4; the prompt is not read here
}


def attach_adapter(unet: nn.Module, *, rank: int, alpha: float, targets: str, seed: int) -> list[str]:
    """Add a trainable LoRA that changes nothing yet: down is Gaussian and up is zero, both fp32.

    The base weights are frozen. The same base, rank, targets and seed give the same down matrices on every
    device, because peft draws on the CPU. The global random state does not change.

    Args:
        unet: UNet of diffusers or `Network` without an adapter; changed in place.
        rank: inner size of each LoRA, >= 1.
        alpha: the update is scaled by alpha / rank; 0 means alpha = rank.
        targets: key of `TARGETS`; a network says itself what each of them means there.
        seed: any integer.

    Returns:
        Paths of the adapted modules inside the UNet, in the order of the network.

    Raises:
        ValueError: if rank or targets are out of range, the UNet has an adapter already, or it has no module
            of that kind.
    """
    from peft import LoraConfig, inject_adapter_in_model  # see the module docstring

    _check_attach(unet, rank, targets)
    names = _targets_of(unet)[targets]
    config = LoraConfig(r=rank, lora_alpha=alpha or rank, init_lora_weights="gaussian", target_modules=names)
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also reseed the GPUs, which fork_rng(devices=[]) does not restore
        torch.default_generator.manual_seed(seed)
        inject_adapter_in_model(config, unet, adapter_name=NAME)
    for parameter in adapter_parameters(unet).values():
        parameter.data = parameter.data.float()  # peft uses the type of the base, which may be fp16
    return list(_lora_layers(unet))


def detach_adapter(unet: nn.Module) -> None:
    """Put the original modules back; do nothing if no adapter is attached."""
    for name, layer in _lora_layers(unet).items():
        parent, _, child = name.rpartition(".")
        setattr(unet.get_submodule(parent), child, layer.get_base_layer())
    if hasattr(unet, "peft_config"):
        del unet.peft_config


@contextmanager
def reference(unet: nn.Module) -> Iterator[None]:
    """Switch the adapter off within the context, so that the UNet is the base model."""
    layers = _lora_layers(unet).values()
    were_off = [layer.disable_adapters for layer in layers]
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer, was_off in zip(layers, were_off, strict=True):
            layer.enable_adapters(not was_off)


@contextmanager
def thinned(unet: nn.Module, kept_share: float, generator: torch.Generator) -> Iterator[None]:
    """Switch off random output neurons of every LoRA within the context, as a merge does.

    The neurons of a module are drawn when it first runs and then reused, so that gradient checkpointing runs
    the same block again in the backward pass.

    Args:
        unet: UNet with an adapter.
        kept_share: probability that a neuron stays on, in (0, 1].
        generator: draws the neurons, on the CPU.
    """
    is_on: dict[nn.Module, Tensor] = {}

    def keep_some(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if module not in is_on:
            is_on[module] = torch.rand(output.shape[-1], generator=generator) < kept_share  # (d_out,)
        return output * is_on[module].to(output)

    hooks = [layer.lora_B[NAME].register_forward_hook(keep_some) for layer in _lora_layers(unet).values()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def adapter_parameters(unet: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable factors as stored, without alpha / rank.

    Returns:
        `<module>.down`, shape (rank, d_in), and `<module>.up`, shape (d_out, rank), in the order of the
        network.
    """
    return {
        f"{name}.{side}": getattr(layer, factor)[NAME].weight
        for name, layer in _lora_layers(unet).items()
        for side, factor in (("down", "lora_A"), ("up", "lora_B"))
    }


def read_adapter(unet: nn.Module) -> dict[str, LowRank]:
    """Copy the LoRA from the UNet, with alpha / rank folded into up.

    Returns:
        Module path -> LowRank in fp32 on the CPU; empty if no adapter is attached.
    """
    return {
        name: LowRank(
            up=_copy(layer.lora_B[NAME].weight) * layer.scaling[NAME],
            down=_copy(layer.lora_A[NAME].weight),
        )
        for name, layer in _lora_layers(unet).items()
    }


def load_adapter(unet: nn.Module, layers: Mapping[str, LowRank]) -> None:
    """Copy a LoRA into the attached adapter; the reference stays the base model.

    Args:
        unet: UNet with an adapter of the same modules and shapes.
        layers: module path -> LowRank, as `read_adapter` returns it.

    Raises:
        ValueError: if the modules or shapes differ from those of the adapter, which is not changed then.
    """
    attached = _lora_layers(unet)
    if attached.keys() != layers.keys():
        different = sorted(attached.keys() ^ layers.keys())
        raise ValueError(
            f"the adapter has {len(attached)} modules, the LoRA has {len(layers)}, and {len(different)} are "
            f"in only one of them, such as {different[0]}. Attach the adapter with the targets the LoRA was "
            "trained with."
        )
    for name, layer in attached.items():
        _check_rank(name, layer, layers[name])
    with torch.no_grad():
        for name, layer in attached.items():
            layer.lora_A[NAME].weight.copy_(layers[name].down)
            layer.lora_B[NAME].weight.copy_(layers[name].up / layer.scaling[NAME])


def initial_a_hash(unet: nn.Module) -> str:
    """Return a hash of the current down matrices; call it before the first training step.

    Experts whose training started from the same down matrices share their rank coordinates, which some merge
    methods need.

    Returns:
        SHA-256 over module paths and fp32 bytes, 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, layer in sorted(_lora_layers(unet).items()):
        digest.update(name.encode())
        digest.update(_copy(layer.lora_A[NAME].weight).numpy().tobytes())
    return digest.hexdigest()


def _lora_layers(unet: nn.Module) -> dict[str, LoraLayer]:
    if not hasattr(unet, "peft_config"):
        return {}
    from peft.tuners.lora import LoraLayer  # see the module docstring

    return {name: module for name, module in unet.named_modules() if isinstance(module, LoraLayer)}


def _copy(weight: Tensor) -> Tensor:
    return weight.detach().to("cpu", torch.float32, copy=True).contiguous()


def _check_attach(unet: nn.Module, rank: int, targets: str) -> None:
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}.")
    if targets not in TARGETS:
        raise ValueError(f"targets must be one of {', '.join(TARGETS)}, got {targets!r}.")
    if hasattr(unet, "peft_config"):
        raise ValueError("the UNet already carries an adapter. Remove it with detach_adapter first.")
    wanted = _targets_of(unet)[targets]
    names = [name for name, _ in unet.named_modules()]
    if isinstance(wanted, str):
        if not any(re.fullmatch(wanted, name) for name in names):
            raise ValueError(f"the network has no layer for targets {targets}. Choose other targets.")
        return
    endings = tuple(f".{name}" for name in wanted)
    if not any(name.endswith(endings) for name in names):
        raise ValueError(
            f"the UNet has no module whose path ends in {', '.join(endings)}. Load a UNet of diffusers."
        )


def _targets_of(unet: nn.Module) -> Mapping[str, list[str] | str]:
    """Return what each of `TARGETS` is here: endings of paths, or an expression that whole paths match."""
    return unet.targets if isinstance(unet, Network) else TARGETS


def _check_rank(name: str, layer: LoraLayer, factors: LowRank) -> None:
    up, down = layer.lora_B[NAME].weight.shape, layer.lora_A[NAME].weight.shape
    if (up, down) != (factors.up.shape, factors.down.shape):
        raise ValueError(
            f"{name} needs up of shape {tuple(up)} and down of shape {tuple(down)}, got "
            f"{tuple(factors.up.shape)} and {tuple(factors.down.shape)}. Attach the adapter with the rank "
            "the LoRA was trained with."
        )
