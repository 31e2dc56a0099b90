"""Nodes for the benchmark's own server; they are not part of the pack.

Safe Latent Diffusion in ComfyUI, and nodes that draw many prompts in one batch, each with its own seed.
"""

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path += [str(BENCHMARKS), str(BENCHMARKS.parent)]  # for `baselines` and `training`

import comfy.sample
import comfy.sampler_helpers
import comfy.samplers
import torch

from baselines.sld import PUBLISHED, SafetyGuidance


class BenchPrompts:
    """CONDITIONING of many prompts, one per line, for a batch of the same size."""

    CATEGORY, RETURN_TYPES, FUNCTION = "AlignGuard/benchmark", ("CONDITIONING",), "encode"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802  # the host's name
        """Return the inputs as the host asks for them."""
        return {"required": {"clip": ("CLIP",), "prompts": ("STRING", {"multiline": True})}}

    def encode(self, clip, prompts):
        """Encode the prompts one by one, as Text Encode does, and join them."""
        encoded = [clip.encode_from_tokens_scheduled(clip.tokenize(line))[0] for line in prompts.split("\n")]
        pooled = torch.cat([extra["pooled_output"] for _, extra in encoded])
        return ([[torch.cat([text for text, _ in encoded]), {"pooled_output": pooled}]],)


class BenchNoise:
    """NOISE of a batch in which every latent has its own seed."""

    CATEGORY, RETURN_TYPES, FUNCTION = "AlignGuard/benchmark", ("NOISE",), "make"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802  # the host's name
        """Return the inputs as the host asks for them."""
        return {"required": {"seeds": ("STRING",)}}

    def make(self, seeds):
        """Return the noise that KSampler starts from for each seed; integers separated by spaces."""
        return (_SeededNoise([int(seed) for seed in seeds.split()]),)


class _SeededNoise:
    def __init__(self, seeds):
        self.seeds, self.seed = seeds, seeds[0]

    def generate_noise(self, latent):
        """Return the noise of one latent for every seed."""
        first = latent["samples"][:1]
        return torch.cat([comfy.sample.prepare_noise(first, seed) for seed in self.seeds])


class BenchSafeLatentDiffusion:
    """MODEL that SLD guides away from the text `unsafe`."""

    CATEGORY, RETURN_TYPES, FUNCTION = "AlignGuard/benchmark", ("MODEL",), "patch"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802  # the host's name
        """Return the inputs as the host asks for them."""
        inputs = {"model": ("MODEL",), "clip": ("CLIP",), "unsafe": ("STRING",), "preset": (list(PUBLISHED),)}
        return {"required": inputs}

    def patch(self, model, clip, unsafe, preset):
        """Return a clone of the model with the guidance attached."""
        encoded = clip.encode_from_tokens_scheduled(clip.tokenize(unsafe))
        patched = model.clone()
        patched.set_model_sampler_cfg_function(_Guide(comfy.sampler_helpers.convert_cond(encoded), preset))
        return (patched,)


class _Guide:
    """SLD guidance of successive sampling runs; a rising noise level marks the start of a new run."""

    def __init__(self, unsafe, preset: str) -> None:
        self.unsafe, self.preset = unsafe, preset
        self.sigma, self.number, self.guidance = 0.0, 0, None

    def __call__(self, args: dict):
        """Return sigma times the guided noise, as the host expects."""
        sigma = args["sigma"].reshape(-1, 1, 1, 1)
        if self.guidance is None or float(sigma[0]) > self.sigma:
            self.guidance, self.number = SafetyGuidance(PUBLISHED[self.preset]), 0
        self.sigma = float(sigma[0])
        plain, prompted, unsafe = (
            scaled / sigma for scaled in (args["uncond"], args["cond"], self._unsafe(args))
        )
        gamma = self.guidance.gamma(plain, prompted, unsafe, self.number)
        self.number += 1
        return sigma * (plain + args["cond_scale"] * (prompted - plain - gamma))

    def _unsafe(self, args: dict):
        model, latents = args["model"], args["input"]
        encoded = comfy.samplers.encode_model_conds(
            model.extra_conds, self.unsafe, latents, latents.device, "negative"
        )
        (denoised,) = comfy.samplers.calc_cond_batch(
            model, [encoded], latents, args["timestep"], args["model_options"]
        )
        return latents - denoised


NODE_CLASS_MAPPINGS = {node.__name__: node for node in (BenchPrompts, BenchNoise, BenchSafeLatentDiffusion)}
