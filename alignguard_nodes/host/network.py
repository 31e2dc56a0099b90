"""The network of a MODEL, lent to `training` as it is: no copy of its weights and no other library."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.model_management
import comfy.model_sampling
import comfy.quant_ops
import comfy.samplers
import torch
from torch import Tensor, nn

from ...training.models.conditioning import Conditioning
from ...training.models.flow import FlowFamily
from ...training.models.network import Network
from ...training.models.noise import NUM_TIMESTEPS, FlowSchedule
from .pictures import as_in_host, without_frames

_PLAIN = (torch.float32, torch.float16, torch.bfloat16)
_KERNEL = "rms_rope_split_half"  # of Anima's attention, which calls it whatever the host's switch says


def check_flow(model: Any, family: FlowFamily) -> None:
    """Check that the network of a flow's MODEL can be trained.

    Args:
        model: MODEL, free of changes besides patches of its weights and another shift.
        family: of the MODEL.

    Raises:
        ValueError: if its sampling is not that of a flow, or its weights are quantised.
    """
    if not isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.CONST):
        raise ValueError(
            f"the sampling of this {family.label} MODEL was changed to one that is not a flow's. Connect the "
            "MODEL directly from its loader, or through a node that only changes the shift."
        )
    for name, module in model.model.diffusion_model.named_modules():
        weight = getattr(module, "weight", None)
        if family.has_layer(name) and (not isinstance(module, nn.Linear) or weight.dtype not in _PLAIN):
            kind = getattr(weight, "dtype", type(module).__name__)
            raise ValueError(
                f"this MODEL is quantised: {name} is {kind}. Training through quantised weights is not "
                f"supported. Load the {family.label} model in fp32, fp16 or bf16 (weight_dtype: default)."
            )


def flow_network(model: Any, family: FlowFamily, replaced: Mapping[str, Tensor]) -> "HostNetwork":
    """Return the network of a flow's MODEL.

    Args:
        model: MODEL.
        family: of the MODEL.
        replaced: weights to use instead of the MODEL's, by name inside the network.
    """
    sampling, schedule = model.get_model_object("model_sampling"), flow_schedule(model)

    def timestep(timesteps: Tensor) -> Tensor:
        return sampling.timestep(schedule.sigmas.to(timesteps.device)[timesteps])

    blocks = [getattr(model.model.diffusion_model, name) for name in family.blocks]
    return HostNetwork(model, family.targets(len(blocks[-1]) - 1), family.blocks, timestep, replaced)


def flow_schedule(model: Any) -> FlowSchedule:
    """Return the noise levels that a flow's MODEL is sampled at, its shift included.

    So training sees a noise level as often as an even sampling of many steps does.
    """
    sigmas = model.get_model_object("model_sampling").sigmas
    with torch.inference_mode(False):
        places = (torch.arange(1, NUM_TIMESTEPS + 1) * len(sigmas)) // NUM_TIMESTEPS - 1
        return FlowSchedule(torch.tensor(sigmas.tolist())[places])


@contextmanager
def gradients_in_host() -> Iterator[None]:
    """Make newer hosts compute what gradients flow through, in place of fused kernels.

    ComfyUI 0.33's own trainer sets the same switch; older hosts have neither the kernels nor the switch.
    """
    management, kernels = comfy.model_management, getattr(comfy.quant_ops, "ck", None)
    with ExitStack() as changes:
        if hasattr(management, "in_training"):
            changes.enter_context(_changed(management, "in_training", True))
        if hasattr(kernels, _KERNEL):
            plain = getattr(kernels.backends.eager.rope, _KERNEL)  # the same, in operations of torch
            changes.enter_context(_changed(kernels, _KERNEL, plain))
        yield


@contextmanager
def _changed(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


class HostNetwork(Network):
    """A MODEL's own network, run as the host runs it, up to what it predicts.

    Its modules are copies that share the weights' memory with the MODEL; layers that are put around them, and
    a move to another device, leave the MODEL as it is.

    Args:
        model: MODEL, without patches on its weights.
        targets: see `Network`.
        blocks: names of the network's lists of blocks.
        timestep: turns a timestep of the schedule, (batch,) int64, into what the network reads, (batch,).
        replaced: weights to use instead of the MODEL's, by name inside the network.
    """

    def __init__(
        self,
        model: Any,
        targets: Mapping[str, str],
        blocks: Sequence[str],
        timestep: Callable[[Tensor], Tensor],
        replaced: Mapping[str, Tensor] | None = None,
    ) -> None:
        base = model.model
        network = _sharing(base.diffusion_model, replaced or {})
        for module in network.modules():
            if isinstance(module, nn.LayerNorm):  # some blocks add to what their norms have read
                module.register_forward_pre_hook(_on_a_copy)
        super().__init__(network, targets)
        base = copy.copy(base)
        base._modules = {**base._modules, "diffusion_model": network}
        base._modules.pop("model_sampling", None)
        vars(base)["model_sampling"] = _AsPredicted(timestep)
        vars(self)["_base"] = base  # not a child: its weights are this module's already
        self._block_lists = blocks

    @property
    def input_dtype(self) -> torch.dtype:
        """The type that the host computes in."""
        return self._base.manual_cast_dtype or self._base.get_dtype()

    @property
    def block_list(self) -> list[nn.Module]:
        """See `Network`."""
        return [block for name in self._block_lists for block in self._modules[name]]

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Run the host's model on rows of equal length at a time, see `Network`."""
        groups = conditioning.by_length()
        if len(groups) == 1:
            return self._run(noisy, timesteps, groups[0][1])
        parts = [self._run(noisy[rows], timesteps[rows], prompts) for rows, prompts in groups]
        order = torch.tensor([row for rows, _ in groups for row in rows], device=noisy.device)
        return torch.cat(parts)[order.argsort()]

    def _run(self, noisy: Tensor, timesteps: Tensor, prompts: Conditioning) -> Tensor:
        noisy = as_in_host(noisy, self._base.latent_format)
        embeds = prompts.text_embeds.clone()  # blocks may write into it
        condition = {"cross_attn": embeds, "pooled_output": prompts.pooled, "model_conds": {}}
        (encoded,) = comfy.samplers.encode_model_conds(
            self._base.extra_conds, [condition], noisy, noisy.device, "positive"
        )
        inputs = {
            name: value.process_cond(batch_size=len(noisy), device=noisy.device).cond
            for name, value in encoded["model_conds"].items()
        }
        return without_frames(self._base.apply_model(noisy.float(), timesteps, **inputs))


class _AsPredicted:
    """A sampling that leaves the network's inputs and its prediction as they are."""

    def __init__(self, timestep: Callable[[Tensor], Tensor]) -> None:
        self._timestep = timestep

    def calculate_input(self, timesteps: Tensor, noisy: Tensor) -> Tensor:
        """Return the latents, which are noised as the network reads them."""
        return noisy

    def timestep(self, timesteps: Tensor) -> Tensor:
        """Return what the network reads as its time."""
        return self._timestep(timesteps)

    def calculate_denoised(self, timesteps: Tensor, predicted: Tensor, noisy: Tensor) -> Tensor:
        """Return the prediction, because training compares it with the target of the network itself."""
        return predicted


def _sharing(network: nn.Module, replaced: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a module whose weights are ordinary tensors, in the same memory unless replaced."""
    memo = {}
    for name, weight in network.named_parameters():
        memo[id(weight)] = nn.Parameter(_ordinary(replaced.get(name, weight)), requires_grad=False)
    for buffer in network.buffers():
        memo[id(buffer)] = _ordinary(buffer)
    return copy.deepcopy(network, memo)


def _on_a_copy(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return a norm's inputs as a copy where the backward pass will read them again."""
    if not (torch.is_grad_enabled() and inputs[0].requires_grad):
        return inputs
    return (inputs[0].clone(), *inputs[1:])


def _ordinary(tensor: Tensor) -> Tensor:
    """Return a tensor on the same memory that gradients may flow through, which the host's do not allow."""
    same = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return same.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())
