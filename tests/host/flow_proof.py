"""Prove a small flow with random weights against the host: its network, its training and its experts.

    python flow_proof.py COMFYUI_FOLDER FAMILY CHECKPOINT MINI_CHECKPOINT MINI_EXPERT FOLDER PACK_PARENT

CHECKPOINT is that of SD 3; a network of another family is built from the host's own classes.

Prints one line of JSON. PACK_PARENT contains the pack under the name `alignguard`.
"""

import json
import logging
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

HOST, FAMILY, CHECKPOINT, MINI, MINI_EXPERT, FOLDER, PACK_PARENT = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path[:0] = [HOST, PACK_PARENT]

import comfy.options

comfy.options.enable_args_parsing()

import comfy.lora
import comfy.sd
import comfy.utils
import torch
from alignguard.alignguard_nodes import host
from alignguard.alignguard_nodes.host.apply import apply_expert
from alignguard.training.config import MergeConfig, TrainConfig
from alignguard.training.experts import adapter
from alignguard.training.experts.expert import SafetyExpert, load_expert, save_expert
from alignguard.training.losses import resolved
from alignguard.training.merging import MERGE_METHODS, merge_experts
from alignguard.training.models.conditioning import Conditioning
from alignguard.training.models.flow import FLOW_FAMILIES
from alignguard.training.pairs.training_data import Bucket, TrainingData
from alignguard.training.trainer.batch import draw_batch
from alignguard.training.trainer.loop import train
from alignguard.training.trainer.progress import Progress
from alignguard.training.trainer.run import Run
from alignguard.training.trainer.step import accumulate_gradients
from torch import Tensor

from built_flow import NETWORKS, built_model, lacking

CONFIG = TrainConfig(
    objective="alignguard",
    beta=5000.0,
    batch_size=2,
    steps=2,
    rank=2,
    learning_rate=1e-2,
    caption_dropout=0.0,
    safe_prompt_weight=0.0,
    validation=0.0,
)
GUIDANCE = 3.5  # the host's default, which FLUX.1 reads
TARGETS = ("attention", "attention+ff", "self-attention")
PAIRS, SIDE = 3, 8
TOKENS = 5 if FAMILY == "krea2" else 77  # Krea 2 reads twelve layers of the text encoder at each token


def main() -> None:
    """Run all proofs."""
    if missing := lacking(FAMILY):
        sys.stdout.write(json.dumps({"skipped": missing}) + "\n")
        return
    with torch.inference_mode():  # as the host loads models when it runs a graph
        model = built_model(FAMILY) if FAMILY in NETWORKS else loaded(CHECKPOINT)
        mini = loaded(MINI)
    data = random_data()
    results: dict[str, object] = {"family": host.family_of(model)[0]}
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    with host.outside_inference_mode(), host.borrowed_unet(model, "fp32") as lent:
        names = [name for name, _ in model.model.diffusion_model.named_modules()]
        attention = lent.unet.targets["attention"]
        results["attention"] = sum(bool(re.fullmatch(attention, name)) for name in names)
        results |= predictions(model, lent, data) | losses(model, lent, data)
        results["without_gradient"] = {targets: without_gradient(lent, data, targets) for targets in TARGETS}
        trained = train(lent.unet, data, lent.schedule, CONFIG, free_bytes=2**33)
        results["losses"], results["peak"] = trained.losses, trained.plan.peak_bytes
    after = model.model.state_dict()
    results["changed_weights"] = sum(not torch.equal(before[name], after[name]) for name in before)
    expert = SafetyExpert(trained.layers, ("violence",), lent.family.name, {}, "trained")
    results |= loading(model, expert)
    results["merged"] = merging(model, expert)
    results["refused"] = {
        "sd15 here": refusal(model, load_expert(Path(MINI_EXPERT))),
        "on sd15": refusal(mini, expert),
    }
    sys.stdout.write(json.dumps(results) + "\n")


def loaded(checkpoint: str):
    """Return the MODEL of a checkpoint."""
    return comfy.sd.load_checkpoint_guess_config(checkpoint, output_vae=False, output_clip=False)[0]


def random_data() -> TrainingData:
    """Return random pairs whose prompts have one of two lengths, as T5 and long prompts give them."""
    family, generator = FLOW_FAMILIES[FAMILY], torch.Generator().manual_seed(0)
    shape = (family.latent_channels, SIDE, SIDE)
    latents = torch.randn(3, PAIRS, *shape, generator=generator)
    prompts = Conditioning.concatenate(
        [
            Conditioning(
                torch.randn(1, TOKENS * (1 + number % 2), family.text_width, generator=generator),
                torch.randn(1, family.pooled_width, generator=generator) if family.pooled_width else None,
            )
            for number in range(3 * PAIRS)
        ]
    )
    numbers = torch.arange(3 * PAIRS).view(3, PAIRS)
    bucket = Bucket(shape, torch.arange(PAIRS), torch.arange(PAIRS))
    return TrainingData(*latents, prompts, *numbers, prompts[[0]], (bucket,), "0" * 64, "0" * 64)


def predictions(model, lent, data: TrainingData) -> dict[str, object]:
    """Compare the lent network's velocity with what the host's own model implies, at several noise levels."""
    timesteps = torch.tensor([0, 500, 999])
    noisy, prompts = data.winner, data.prompts[[0, 1, 2]]
    with torch.no_grad():
        ours = lent.unet.predict(noisy, timesteps, prompts)
    theirs = torch.cat(
        [velocity_of_host(model, lent, noisy[[n]], timesteps[[n]], prompts[[n]]) for n in range(PAIRS)]
    )
    return {
        "velocity": difference(ours, theirs),
        "sigmas": difference(lent.schedule.sigmas, levels_of_host(model)),
    }


def levels_of_host(model) -> Tensor:
    """Return the host's noise levels at 1000 even steps of its own time, the noisiest last."""
    sampling = model.model.model_sampling
    even = torch.arange(1, 1001) / 1000
    return sampling.sigma(even * getattr(sampling, "multiplier", 1))


def velocity_of_host(model, lent, noisy: Tensor, timesteps: Tensor, prompt: Conditioning) -> Tensor:
    """Return (noisy - denoised) / sigma of the host's model for one row."""
    sigma = lent.schedule.sigmas[timesteps]
    ((_, prompt),) = prompt.by_length()
    with torch.inference_mode():
        inputs = {"c_crossattn": prompt.text_embeds}
        inputs |= {"y": prompt.pooled} if FLOW_FAMILIES[FAMILY].pooled_width else {}
        inputs |= {"guidance": torch.tensor([GUIDANCE])} if FAMILY == "flux1" else {}
        if FAMILY == "flux2":  # the host pads short prompts in front
            missing = max(0, 512 - prompt.text_embeds.shape[1])
            inputs["c_crossattn"] = torch.nn.functional.pad(prompt.text_embeds, (0, 0, missing, 0))
        inputs |= {"num_tokens": prompt.text_embeds.shape[1]} if FAMILY == "zimage" else {}
        has_frames = model.model.latent_format.latent_dimensions == 3
        denoised = model.model.apply_model(noisy[:, :, None] if has_frames else noisy, sigma, **inputs)
        return (noisy - denoised.reshape(noisy.shape)) / sigma[:, None, None, None]


def losses(model, lent, data: TrainingData) -> dict[str, object]:
    """Compare the first loss with log 2, and that of a visible adapter with the host's own predictions."""
    run = attached(lent, data, "attention")
    draw = draw_batch(run, 0)
    start, _ = accumulate_gradients(run, Progress(run), draw)
    visible(lent.unet)
    moved, _ = accumulate_gradients(run, Progress(run), draw)
    layers = adapter.read_adapter(lent.unet)
    adapter.detach_adapter(lent.unet)
    patched, _ = apply_expert(model, SafetyExpert(layers, (), FAMILY, {}, "visible"), strength=1.0)
    patched.patch_model()
    policy = pair_errors_of_host(patched, lent, data, draw)
    patched.unpatch_model()
    reference = pair_errors_of_host(model, lent, data, draw)
    gains = [before - after for before, after in zip(reference, policy, strict=True)]
    by_hand = -torch.nn.functional.logsigmoid(CONFIG.beta / 2 * (gains[0] - gains[1])).mean()
    return {
        "first_loss": float(start["loss"]) - math.log(2),
        "loss": float(moved["loss"]),
        "loss_by_hand": float(by_hand),
    }


def pair_errors_of_host(model, lent, data: TrainingData, draw) -> tuple[Tensor, Tensor]:
    """Return the errors of winners and losers, (pairs,) each, by the host's own model."""
    errors = []
    for table in (data.winner, data.loser):
        rows = []
        for pair, timestep, noise in zip(draw.pairs, draw.timesteps, draw.noise, strict=True):
            sigma, clean = lent.schedule.sigmas[timestep], table[pair]
            noisy = ((1 - sigma) * clean + sigma * noise)[None]
            prompt = data.prompts[data.unsafe_prompt[pair][None]]
            predicted = velocity_of_host(model, lent, noisy, timestep[None], prompt)
            rows.append((predicted[0] - (noise - clean)).square().mean())
        errors.append(torch.stack(rows))
    return tuple(errors)


def without_gradient(lent, data: TrainingData, targets: str) -> list[str]:
    """Return the trained layers that get no gradient."""
    try:
        run = attached(lent, data, targets, beta=1.0)  # at a large one the loss of some networks is flat
    except ValueError as error:
        return [str(error)]
    visible(lent.unet)
    accumulate_gradients(run, Progress(run), draw_batch(run, 0))
    names = [name for name, factor in run.parameters.items() if not bool(factor.grad.count_nonzero())]
    adapter.detach_adapter(lent.unet)
    return names if run.parameters else ["no layer at all"]


def attached(lent, data: TrainingData, targets: str, beta: float = CONFIG.beta) -> Run:
    adapter.attach_adapter(lent.unet, rank=2, alpha=0, targets=targets, seed=0)
    torch.set_grad_enabled(True)
    return Run.of(lent.unet, data, lent.schedule, resolved(replace(CONFIG, beta=beta)))


def visible(network) -> None:
    """Give the adapter an update that can be seen."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, factor in adapter.adapter_parameters(network).items():
            if name.endswith(".up"):
                factor.copy_(0.1 * torch.randn(factor.shape, generator=generator))


def loading(model, expert: SafetyExpert) -> dict[str, object]:
    """Save an expert, and compare what the stock loader and Apply make of the file."""
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    file = save_expert(expert, Path(FOLDER) / "expert.safetensors")
    state = comfy.utils.load_torch_file(str(file))
    stock, _ = comfy.sd.load_lora_for_models(model, None, state, 1.0, 0.0)
    logging.getLogger().removeHandler(handler)
    read = load_expert(file)
    ours, sentence = apply_expert(model, read, strength=1.0)
    return {
        "warnings": warnings,
        "layers": len(expert.layers),
        "patched": len(stock.patches),
        "same_keys": stock.patches.keys() == ours.patches.keys(),
        "different": [key for key in stock.patches if not torch.equal(weight(stock, key), weight(ours, key))],
        "unchanged": [key for key in stock.patches if torch.equal(weight(stock, key), weight(model, key))],
        "sentence": sentence,
        "read_family": read.family,
        "read_hash": read.content_hash == expert.content_hash,
        "report": read.report(),
    }


def weight(model, key: str) -> Tensor:
    """Return a weight as the host samples with it."""
    plain = comfy.utils.get_attr(model.model, key)
    return comfy.lora.calculate_weight(model.patches.get(key, []), plain.float().clone(), key)


def merging(model, expert: SafetyExpert) -> dict[str, int]:
    """Merge two experts by every method without a model; return how many layers the host takes of each."""
    generator = torch.Generator().manual_seed(2)
    other = {
        name: type(layer)(torch.randn(layer.up.shape, generator=generator) * 0.01, layer.down)
        for name, layer in expert.layers.items()
    }
    experts = [expert, SafetyExpert(other, ("hate",), expert.family, {}, "other")]
    taken = {}
    for name, method in MERGE_METHODS.items():
        if method.collector is None:
            merged = merge_experts(experts, MergeConfig(method=name))
            taken[name] = len(apply_expert(model, merged, strength=1.0)[0].patches)
    return taken


def refusal(model, expert: SafetyExpert) -> str:
    """Return the error of applying an expert, empty if there is none."""
    try:
        apply_expert(model, expert, strength=1.0)
    except ValueError as error:
        return str(error)
    return ""


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    return float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())


if __name__ == "__main__":
    main()
