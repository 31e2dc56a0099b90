"""Draw with Dual Latent Guidance inside a ComfyUI, and compare with what the host draws alone.

    python dual_latent_proof.py COMFYUI_FOLDER CHECKPOINT PACK_PARENT

Prints one line of JSON. PACK_PARENT contains the pack under the name `alignguard`.
"""

import json
import sys
import time

HOST, CHECKPOINT, PACK_PARENT = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path[:0] = [HOST, PACK_PARENT]

import comfy.options

comfy.options.enable_args_parsing()

import comfy.hooks
import comfy.sample
import comfy.samplers
import comfy.sd
import torch
from alignguard.alignguard_nodes import host
from alignguard.training.config import DualLatentConfig
from comfy.patcher_extension import WrappersMP
from torch import Tensor

PROMPT, SAFE, OTHER = "a white skull on a black ground", "a white smiley on a black ground", "a red star"
SAMPLERS = ("euler", "ddim", "heun", "dpmpp_2m")
STEPS, TIMED_STEPS, TIMED_RUNS = 6, 12, 3


def main() -> None:
    """Compare every way of guiding with the pictures of the two prompts."""
    model, clip, *_ = comfy.sd.load_checkpoint_guess_config(CHECKPOINT, output_vae=False)
    with torch.inference_mode():
        prompt, safe, other, empty = (encoded(clip, text) for text in (PROMPT, SAFE, OTHER, ""))
        plain, wanted = drawn(model, prompt, empty), drawn(model, safe, empty)
        results = {
            "prompts differ": difference(plain, wanted),
            "whole weight": {
                name: difference(
                    drawn(guided(model, safe, 1.0, 0.0), prompt, empty, name), drawn(model, safe, empty, name)
                )
                for name in SAMPLERS
            },
            "never starts": difference(drawn(guided(model, safe, 0.5, 1.0), prompt, empty), plain),
            "by weight": [
                float((drawn(guided(model, safe, weight, 0.0), prompt, empty) - plain).norm())
                for weight in (0.25, 0.5, 0.75, 1.0)
            ],
            "by start": [
                float((drawn(guided(model, safe, 1.0, start), prompt, empty) - plain).norm())
                for start in (0.0, 0.4, 0.8)
            ],
            "same context": difference(drawn(guided(model, prompt, 0.5, 0.0), prompt, empty), plain),
            "cfg 1": difference(
                drawn(guided(model, safe, 1.0, 0.0), prompt, empty, cfg=1.0),
                drawn(model, safe, empty, cfg=1.0),
            ),
            "sum of latents": sum_of_latents(model, prompt, safe, empty),
            "two nodes": difference(
                drawn(guided(guided(model, other, 0.5, 0.0), safe, 1.0, 0.0), prompt, empty), wanted
            ),
            "regions": regions(model, prompt, other, safe, empty),
            "only half the steps": half_of_the_steps(model, prompt, safe, empty),
            "failed run": after_a_failed_run(model, prompt, safe, empty, plain),
            "base again": difference(drawn(model, prompt, empty), plain),
            "time": time_ratio(model, prompt, safe, empty),
            "refused guider": said_by(lambda: with_two_prompts(model, prompt, other, safe, empty)),
            "refused hooks": said_by(lambda: guided(model, hooked(safe), 0.5, 0.0)),
        }
    sys.stdout.write(json.dumps(results) + "\n")


def encoded(clip, text: str) -> list:
    """Return a conditioning as CLIP Text Encode makes it."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def guided(model, safe: list, weight: float, start: float):
    """Return the MODEL guided to a safe context."""
    return host.guide_to(model, safe, DualLatentConfig(weight=weight, start=start))


def drawn(
    model, positive: list, negative: list, sampler: str = "euler", cfg: float = 3.0, steps: int = STEPS
) -> Tensor:
    """Return the latents that the host samples, two of a batch."""
    latent = torch.zeros(2, 4, 8, 8)
    noise = comfy.sample.prepare_noise(latent, 3)
    options = {"cfg": cfg, "sampler_name": sampler, "scheduler": "normal", "seed": 3, "disable_pbar": True}
    return comfy.sample.sample(
        model, noise, steps, positive=positive, negative=negative, latent_image=latent, **options
    )


def regions(model, left: list, right: list, safe: list, empty: list) -> dict:
    """Return how far a prompt of two regions, wholly guided, is from the safe one in both regions."""
    places = ((8, 4, 0, 0), (8, 4, 0, 4))  # height, width, y, x in latent pixels
    positive = [
        [cond[0][0], {**cond[0][1], "area": area, "strength": 1.0}]
        for cond, area in zip((left, right), places, strict=True)
    ]
    both_safe = [[safe[0][0], {**extra, **safe[0][1]}] for _, extra in positive]
    ours = drawn(guided(model, safe, 1.0, 0.0), positive, empty)
    return {
        "from safe regions": difference(ours, drawn(model, both_safe, empty)),
        "from the regions": difference(ours, drawn(model, positive, empty)),
    }


def half_of_the_steps(model, prompt: list, safe: list, empty: list) -> float:
    """Return how far a safe context with a range of steps of its own is from the host's own two ranges."""

    def ranged(cond, start, end):
        return [[cond[0][0], {**cond[0][1], "start_percent": start, "end_percent": end}]]

    theirs = drawn(model, ranged(prompt, 0.0, 0.5) + ranged(safe, 0.5, 1.0), empty)
    return difference(drawn(guided(model, safe, 1.0, 0.5), prompt, empty), theirs)


def sum_of_latents(model, prompt, safe, empty) -> float:
    """Return how far a guided step is from the weighted sum of the latents of both prompts."""
    ends = [drawn(model, positive, empty, steps=1) for positive in (prompt, safe)]
    ours = drawn(guided(model, safe, 0.3, 0.0), prompt, empty, steps=1)
    return difference(ours, 0.7 * ends[0] + 0.3 * ends[1])


def after_a_failed_run(model, prompt, safe, empty, plain) -> float:
    """Return how far the base model is from itself after a guided sampling broke off."""

    def broken(executor, *args, **kwargs):
        raise InterruptedError

    breaking = guided(model, safe, 0.5, 0.0)
    breaking.add_wrapper(WrappersMP.DIFFUSION_MODEL, broken)
    try:
        drawn(breaking, prompt, empty)
    except InterruptedError:
        return difference(drawn(model, prompt, empty), plain)
    raise AssertionError("the sampling did not break off")


def time_ratio(model, prompt, safe, empty) -> float:
    """Return the processor time of a guided sampling by that of a plain one, the least of some runs."""

    def seconds(patcher) -> float:
        start = time.process_time()
        drawn(patcher, prompt, empty, steps=TIMED_STEPS)
        return time.process_time() - start

    runs = [(seconds(model), seconds(guided(model, safe, 0.5, 0.0))) for _ in range(TIMED_RUNS)]
    plain, ours = map(min, zip(*runs, strict=True))
    return ours / plain


def run_guider(guider) -> Tensor:
    """Sample with a guider."""
    latent = torch.zeros(1, 4, 8, 8)
    sampling = guider.model_patcher.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", 2)
    return guider.sample(torch.ones_like(latent), latent, comfy.samplers.sampler_object("euler"), sigmas)


def with_two_prompts(model, prompt, other, safe, empty) -> Tensor:
    """Sample with a guider that draws a second prompt beside the positive one, as DualCFGGuider does."""
    guider = comfy.samplers.CFGGuider(guided(model, safe, 0.5, 0.0))
    guider.inner_set_conds({"positive": prompt, "middle": other, "negative": empty})
    return run_guider(guider)


def hooked(cond: list) -> list:
    """Return a conditioning with a LoRA hook, which the host would drop from a safe context."""
    return [[cond[0][0], {**cond[0][1], "hooks": comfy.hooks.create_hook_lora({}, 1.0, 0.0)}]]


def said_by(action) -> str:
    """Return the sentence with which an action fails."""
    try:
        action()
    except (RuntimeError, ValueError) as error:
        return str(error)
    return ""


def difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, relative to the largest value; 0 means equal bits."""
    return float((one - other).abs().max() / other.abs().max())


main()
