"""Train SD 1.5 on the host's own network and on its copy in diffusers, and compare both.

    python border_proof.py COMFYUI_FOLDER CHECKPOINT PACK_PARENT

Prints one line of JSON. PACK_PARENT contains the pack under the name `alignguard`.
"""

import json
import sys
from contextlib import contextmanager

HOST, CHECKPOINT, PACK_PARENT = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path[:0] = [HOST, PACK_PARENT]

import comfy.options

comfy.options.enable_args_parsing()

import comfy.sd
import torch
from alignguard.alignguard_nodes import host
from alignguard.alignguard_nodes.host.network import HostNetwork
from alignguard.training.config import TrainConfig
from alignguard.training.experts import adapter
from alignguard.training.losses import resolved
from alignguard.training.models.conditioning import Conditioning
from alignguard.training.models.native_unet import module_names, native_name, read_layout
from alignguard.training.models.network import set_checkpointing
from alignguard.training.pairs.training_data import Bucket, TrainingData
from alignguard.training.trainer.batch import draw_batch
from alignguard.training.trainer.progress import Progress
from alignguard.training.trainer.run import Run
from alignguard.training.trainer.step import accumulate_gradients, take_step
from torch import Tensor, nn

from tiny import random_layers, tiny_data

TARGETS = {"attention": r".*\.attn[12]\.(?:to_[qkv]|to_out\.0)"}
BLOCKS = ("input_blocks", "middle_block", "output_blocks")
CONFIG = TrainConfig(
    objective="anchored", beta=500.0, batch_size=2, rank=2, learning_rate=1e-3, row_dropout=0.0
)
STEPS, START = 3, 0.03


def main() -> None:
    """Run both ways from the same adapter, and print what differs."""
    with torch.inference_mode():  # as the host loads models when it runs a graph
        model, *_ = comfy.sd.load_checkpoint_guess_config(CHECKPOINT, output_vae=False, output_clip=False)
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    with host.outside_inference_mode(), host.borrowed_unet(model, "fp32") as lent:
        network = HostNetwork(model, TARGETS, BLOCKS, lambda timesteps: timesteps.float())
        schedule = lent.family.schedule()
        table = module_names(read_layout(network.state_dict()))
        # of the size that training reaches: a large update makes the network amplify every rounding
        start = {path: layer.scaled(START) for path, layer in random_layers(lent.unet, rank=2).items()}
        names = {native_name(f"{path}.weight", table).removesuffix(".weight"): path for path in start}
        native_start = {name: start[path] for name, path in names.items()}
        ours = trained(lent.unet, start, schedule, {path: path for path in start})
        theirs = trained(network, native_start, schedule, names)
        recomputed = trained(network, native_start, schedule, names, "full")
    after = model.model.state_dict()
    results = {
        "dtype": str(model.model.get_dtype()),
        "changed_weights": sum(not torch.equal(before[name], after[name]) for name in before),
        "adapters_left": sum(hasattr(module, "lora_A") for module in model.model.modules()),
        "loss": abs(ours["loss"] - theirs["loss"]) / ours["loss"],
        "gradients": apart(ours["gradients"], theirs["gradients"]),
        "worst_gradient": worst(ours["gradients"], theirs["gradients"]),
        "expert": apart(ours["expert"], theirs["expert"]),
        "learned": apart(ours["expert"], {name: start[name].delta() for name in start}),
        "recomputed": worst(theirs["gradients"], recomputed["gradients"]),
        "layers": len(ours["expert"]),
    }
    sys.stdout.write(json.dumps(results) + "\n")


def trained(
    unet: nn.Module, start: dict, schedule, paths: dict[str, str], checkpointing: str = "none"
) -> dict[str, object]:
    """Return loss and gradients of the first step from `start`, and the expert after some steps.

    `paths` has the diffusers path of each layer by its name in `unet`.
    """
    data = pack_data(tiny_data(num_pairs=4, num_neutral=4, width=768))
    with attached(unet):
        adapter.load_adapter(unet, start)
        set_checkpointing(unet, checkpointing)
        run = Run.of(unet, data, schedule, resolved(CONFIG))
        figures, _ = accumulate_gradients(run, progress := Progress(run), draw_batch(run, 0))
        gradients = {name: factor.grad.clone() for name, factor in run.parameters.items()}
        for _ in range(STEPS):
            take_step(run, progress)
        expert = adapter.read_adapter(unet)
        set_checkpointing(unet, "none")
    return {
        "loss": float(figures["loss"]),
        "gradients": {
            f"{paths[module]}.{side}": gradients[f"{module}.{side}"]
            for module in paths
            for side in ("down", "up")
        },
        "expert": {paths[name]: layer.delta() for name, layer in expert.items()},
    }


def pack_data(data) -> TrainingData:
    """Return the data of the tests as values of the pack under its own name."""

    def own(prompts) -> Conditioning:
        return Conditioning(prompts.text_embeds, prompts.pooled)

    fields = {name: getattr(data, name) for name in TrainingData.__dataclass_fields__}
    buckets = tuple(Bucket(*bucket) for bucket in data.buckets)
    return TrainingData(
        **fields | {"prompts": own(data.prompts), "empty": own(data.empty), "buckets": buckets}
    )


@contextmanager
def attached(unet: nn.Module):
    """Attach an adapter within the context."""
    adapter.attach_adapter(unet, rank=CONFIG.rank, alpha=0, targets="attention", seed=0)
    try:
        with torch.enable_grad():
            yield
    finally:
        adapter.detach_adapter(unet)


def apart(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Return the norm of the difference of all tensors together, relative to the norm of all."""
    differences = torch.cat([(ours[name] - theirs[name]).flatten() for name in ours])
    return float(differences.norm() / torch.cat([tensor.flatten() for tensor in ours.values()]).norm())


def worst(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Return the largest difference of any tensor, relative to the largest value in it."""
    if ours.keys() != theirs.keys():
        raise ValueError(f"different names: {sorted(ours.keys() ^ theirs.keys())[:4]}")
    return max(float((ours[n] - theirs[n]).abs().max() / ours[n].abs().max()) for n in ours)


if __name__ == "__main__":
    main()
